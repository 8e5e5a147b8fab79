"""A network as a description and plain arrays, for the twin that computes it in NumPy."""

from typing import Any

import numpy as np

from robo_rl.nn.apply import Params
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.trunks import Portable


class NotPortable(ValueError):
    """A network that has no twin in NumPy."""


def about(net: NetConfig) -> dict[str, Any]:
    """What the twin of a network of this shape is built from: JSON."""
    return _portable(net).about()


def layers(name: str, net: NetConfig, params: Params, last: str) -> dict[str, np.ndarray]:
    """Trunk and the layer called `last`, as arrays below `name`."""
    trunk = _portable(net)
    found = trunk.arrays(params.get("trunk", {}))
    for part in ("kernel", "bias"):
        found[f"{trunk.head}/{part}"] = np.asarray(params[last][part], np.float32)
    return {f"{name}/{key}": value for key, value in found.items()}


def _portable(net: NetConfig) -> Portable:
    trunk = net.trunk()
    if not isinstance(trunk, Portable):
        raise NotPortable(
            f"{net.arch} is a network of your own, which NumPy cannot compute; train with "
            "arch=mlp, simba or bro where the policy needs the network, or act in JAX, by the "
            "agent's `act` on the run's checkpoint"
        )
    return trunk
