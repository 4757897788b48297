"""What the cache keeps, costs and shows."""
