"""Pytrees as flat dictionaries of NumPy arrays, named by their path, and back."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SEPARATOR = "/"


class Rest:
    """In a template: whatever arrays were saved under this name, as a flat dictionary."""


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Every leaf by its path. Random keys become their raw words."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_name(path): np.asarray(_raw(leaf)) for path, leaf in leaves}


def unflatten(template: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """A tree like `template` with the leaves of `arrays`; every difference is an error."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    unused = dict(arrays)
    out = []
    for path, leaf in leaves:
        name = _name(path)
        if isinstance(leaf, Rest):
            prefix = name + SEPARATOR
            below = [key for key in unused if key.startswith(prefix)]
            out.append({key.removeprefix(prefix): unused.pop(key) for key in below})
        elif name not in unused:
            raise ValueError(f"{name} is missing")
        else:
            out.append(_like(leaf, unused.pop(name), name))
    if unused:
        raise ValueError(f"{', '.join(sorted(unused)[:3])} and no place for it")
    return jax.tree_util.tree_unflatten(structure, out)


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    state = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        state.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        state.update(array.tobytes())
    return state.hexdigest()


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=SEPARATOR)


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _raw(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(leaf: Any, array: np.ndarray, name: str) -> Any:
    expected = np.asarray(_raw(leaf))
    if array.shape != expected.shape or array.dtype != expected.dtype:
        raise ValueError(
            f"{name} is {array.dtype} {array.shape}, expected {expected.dtype} {expected.shape}"
        )
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    return jnp.asarray(array) if isinstance(leaf, jax.Array) else array
