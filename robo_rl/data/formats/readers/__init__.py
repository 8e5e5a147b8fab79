"""Readers of dataset formats, one file each: a file here is a format by its name."""
