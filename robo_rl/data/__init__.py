"""Datasets: Minari in and out, replay, relabelling, checking."""
