"""Photo input: any common file format, decoded upright in sRGB, cropped and resampled to the frame size."""
