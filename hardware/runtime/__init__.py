"""Exported policies in NumPy."""
