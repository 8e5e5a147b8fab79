"""Environment seeds. Training and evaluation use separate halves of the 32-bit range."""

import numpy as np

_HALF = 2**31


def training_seed(seed: int, episode: int) -> int:
    """Reset seed of one training episode, in [0, 2**31)."""
    return _draw(seed, 0, episode)


def evaluation_seed(seed: int, episode: int) -> int:
    """Reset seed of one evaluation episode, in [2**31, 2**32): never a training seed."""
    return _HALF + _draw(seed, 1, episode)


def _draw(seed: int, stream: int, episode: int) -> int:
    sequence = np.random.SeedSequence([seed, stream, episode])
    return int(sequence.generate_state(1, np.uint32)[0]) % _HALF
