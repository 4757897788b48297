"""Photographs as users have them: any common file, upright, in sRGB, at the sizes a session needs."""
