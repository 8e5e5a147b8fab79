"""Robots, one folder each: spec, model, topics."""
