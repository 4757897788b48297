"""The studio's page: a browser view of a growing world, and the controls that ask for more of it."""
