"""Doors to other code bases: names and layouts of the same weights elsewhere."""
