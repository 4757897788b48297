"""The inpainting prior: completes a guide by copying texture and extending surfaces."""
