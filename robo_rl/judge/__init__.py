"""Judging policies and runs: evaluation episodes, selection, whether critics fit."""
