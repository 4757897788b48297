"""Synthetic worlds with exact depth, for training and for measuring."""
