"""Run directories: config, metrics, checkpoints, reports."""
