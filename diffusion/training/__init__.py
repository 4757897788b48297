"""Training the embedded networks from rendered clips."""
