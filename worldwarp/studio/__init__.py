"""The studio: a world that people walk into, in a browser, while it is made."""
