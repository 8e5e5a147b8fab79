"""Where a dataset comes from: written into its Minari metadata under the key `robo_rl`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from robo_rl._version import __version__
from robo_rl.data.errors import DatasetCorruptError

METADATA_KEY = "robo_rl"
SCHEMA = 1

Timing = Literal["pre", "post"]
"""Reward and termination of step t judge the state before it ("pre", OGBench's single-task
environments) or the state after it ("post")."""


@dataclasses.dataclass(frozen=True)
class RewardLabel:
    """Who computed the rewards, by which rule."""

    source: str  # "environment", "none", "cube", "ogbench.relabel_dataset", ...
    version: str
    timing: Timing = "post"
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """JSON values: the task, the goal, the tolerance."""


@dataclasses.dataclass(frozen=True)
class StateLayout:
    """What the columns of `infos["qpos"]` and `infos["qvel"]` are, so that jumps can be judged."""

    arm_qpos: int = 0
    """First of the J arm joints, J being the length of `velocity_rad_s`."""
    velocity_rad_s: tuple[float, ...] = ()
    """Velocity limits of the arm's joints; empty when unknown."""
    object_qpos: tuple[int, ...] = ()
    """First column of each free body's position (x, y, z in m)."""
    object_qvel: tuple[int, ...] = ()
    """First column of each free body's linear velocity (m/s), in the same order."""

    def __post_init__(self) -> None:
        if len(self.object_qpos) != len(self.object_qvel):
            raise ValueError(
                "StateLayout: object_qpos and object_qvel must name the same bodies, "
                f"got {self.object_qpos} and {self.object_qvel}"
            )


@dataclasses.dataclass(frozen=True)
class Provenance:
    """How the data came to be."""

    control_hz: float | None
    reward: RewardLabel
    arm: str = ""
    """Name of the arm; empty when there is none."""
    arm_digest: str = ""
    """`ArmSpec.digest()` of the arm that was driven."""
    layout: StateLayout | None = None
    collector: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """JSON values: the oracle and its noise options, or the file that was imported."""
    code_version: str = f"robo_rl {__version__}"

    def __post_init__(self) -> None:
        if self.control_hz is not None and not self.control_hz > 0.0:
            raise ValueError(f"Provenance.control_hz must be > 0, got {self.control_hz}")

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Provenance":
        """Read back what `to_json` wrote. Raises DatasetCorruptError."""
        fields = dict(stored)
        schema = fields.pop("schema", None)
        if schema != SCHEMA:
            raise DatasetCorruptError(
                f"metadata key {METADATA_KEY!r}: expected schema {SCHEMA}, got {schema!r}; "
                "read the dataset with the version of robo_rl that wrote it"
            )
        try:
            fields["reward"] = RewardLabel(**fields["reward"])
            if fields.get("layout") is not None:
                layout = {k: _tupled(v) for k, v in fields["layout"].items()}
                fields["layout"] = StateLayout(**layout)
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetCorruptError(f"metadata key {METADATA_KEY!r}: {error}") from error


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
