import jax
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _no_implicit_rank_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(autouse=True)
def _programs_are_compiled_quickly(quick_compile):
    """The networks are tiny: to optimise takes longer than to run."""


@pytest.fixture
def batch():
    """Eight rows: three observations, two actions, one terminated."""
    rng = np.random.default_rng(0)
    masks = np.ones(8)
    masks[3] = 0.0
    arrays = {
        "observations": rng.normal(size=(8, 3)),
        "actions": rng.uniform(-0.9, 0.9, (8, 2)),
        "rewards": rng.normal(size=8),
        "next_observations": rng.normal(size=(8, 3)),
        "masks": masks,
    }
    return {key: np.asarray(value, np.float32) for key, value in arrays.items()}
