"""What each paper does to rewards and observations, by suite of environments.

A wrong transformation of rewards is the commonest cause of an AntMaze run that learns nothing. The
figures are those of the authors' released settings; ReBRAC's, CQL's and FQL's networks see
observations as they are, TD3+BC's and IQL's (in CORL) standardised. Where nothing is listed,
rewards stay as they are and observations are standardised.
"""

import dataclasses
from collections.abc import Mapping

from robo_rl.envs.registry import EnvSetting

_LOCOMOTION = ("Hopper", "HalfCheetah", "Walker2d", "Ant-", "Humanoid", "Swimmer")
RETURN_RANGE = "return-range"


@dataclasses.dataclass(frozen=True)
class Scales:
    """Rewards become `scale * r + shift`."""

    scale: float | str = 1.0
    """`RETURN_RANGE`: 1000 / (largest less smallest return of the data's episodes)."""
    shift: float = 0.0
    normalise: bool = True
    """Standardise observations by the statistics of the data."""
    source: str = "no transformation is listed for this suite"


_IQL_ANTMAZE = Scales(1.0, -1.0, source="IQL's authors: r - 1 on AntMaze")
_CQL_ANTMAZE = Scales(10.0, -5.0, False, "Cal-QL's authors: 10 r - 5 on AntMaze")
_AS_IT_IS = Scales(1.0, 0.0, False, "the authors' settings: rewards and observations as they are")
_CQL_ADROIT = Scales(10.0, 5.0, False, "Cal-QL's authors: 10 r + 5 on binary Adroit")

DEFAULTS: Mapping[str, Mapping[str, Scales]] = {
    "locomotion": {
        "iql": Scales(
            RETURN_RANGE, 0.0, source="IQL's authors: 1000 / (range of returns) on locomotion"
        ),
        **dict.fromkeys(("rebrac", "fql", "ifql", "cql", "calql", "sac"), _AS_IT_IS),
    },
    "antmaze": {
        "iql": _IQL_ANTMAZE,
        "td3bc": Scales(1.0, 0.0, False, "TD3+BC's author: observations as they are on AntMaze"),
        "rebrac": Scales(100.0, 0.0, False, "ReBRAC's authors: 100 r on AntMaze"),
        "fql": dataclasses.replace(_IQL_ANTMAZE, normalise=False, source="FQL's authors: r - 1"),
        "ifql": dataclasses.replace(_IQL_ANTMAZE, normalise=False, source="FQL's authors: r - 1"),
        "sac": dataclasses.replace(_IQL_ANTMAZE, normalise=False, source="RLPD's authors: r - 1"),
        "cql": _CQL_ANTMAZE,
        "calql": _CQL_ANTMAZE,
    },
    "adroit, sparse": {"cql": _CQL_ADROIT, "calql": _CQL_ADROIT},
}


def suite_of(setting: EnvSetting | None) -> str:
    """The suite of an environment, "" where none is known."""
    name = "" if setting is None else setting.id.rpartition("/")[2].rpartition(":")[2]
    if name.startswith("AntMaze"):
        return "antmaze"
    if name.startswith("AdroitHand") and "Sparse" in name:
        return "adroit, sparse"
    return "locomotion" if name.startswith(_LOCOMOTION) else ""


def scales(agent: str, setting: EnvSetting | None) -> Scales:
    """What the method's paper does in the environment's suite."""
    return DEFAULTS.get(suite_of(setting), {}).get(agent, Scales())
