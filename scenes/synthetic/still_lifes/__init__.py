"""Procedural still lifes: things at arm's length."""
