"""Gymnasium tasks on a simulated or a real robot."""
