"""Whether confidence is calibrated, and whether a killed walk resumes."""
