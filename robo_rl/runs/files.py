"""The names of `robo_rl.files` that run directories use."""

from robo_rl.files import append, read_json, write_bytes, write_json

__all__ = ["append", "read_json", "write_bytes", "write_json"]
