"""The last k frames of a camera as one image, put together only when rows are drawn."""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class FrameStack:
    """N images (H, W, k * C), the oldest frame's channels first, of M >= N frames kept once.

    It is indexed as an array of shape (N, H, W, k * C) is, and gives one. NumPy and JAX alike.
    """

    frames: Any  # (M, H, W, C)
    rows: Any  # (N, k) integers: which frames, the oldest first

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Any) -> Any:
        parts = self.frames[self.rows[chosen]]  # (..., k, H, W, C)
        lead = parts.ndim - 4
        parts = parts.transpose(*range(lead), lead + 1, lead + 2, lead, lead + 3)
        return parts.reshape(*parts.shape[:-2], -1)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def select(self, chosen: np.ndarray) -> "FrameStack":
        """The chosen rows, still not put together."""
        return dataclasses.replace(self, rows=self.rows[chosen])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array that this stands for."""
        *size, channels = self.frames.shape[1:]
        return (len(self), *size, channels * self.rows.shape[1])

    @property
    def ndim(self) -> int:
        """4."""
        return len(self.shape)

    @property
    def dtype(self) -> Any:
        """Of the frames."""
        return self.frames.dtype


def history(ends: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Which frames make up the stacks of N rows that follow each other in time.

    Args:
        ends: (N,) bool, the last row of each episode.
        length: k, at least 1.

    Returns:
        The frames (N, k) before and after each row, the oldest first, by their numbers among the N
        observations followed by the last next observation of each episode. Before its start, an
        episode repeats its first frame.
    """
    if length < 1:
        raise ValueError(f"history: length must be >= 1, got {length}")
    row = np.arange(len(ends), dtype=np.int32)
    begins = np.concatenate([[True], ends[:-1]])
    start = np.maximum.accumulate(np.where(begins, row, 0))[:, None]
    back = np.arange(length - 1, -1, -1, dtype=np.int32)
    before = np.maximum(row[:, None] - back, start)
    after = np.maximum(row[:, None] + 1 - back, start)
    closing = len(ends) + np.cumsum(ends, dtype=np.int32) - 1
    after[:, -1] = np.where(ends, closing, row + 1)
    return before.astype(np.int32), after.astype(np.int32)
