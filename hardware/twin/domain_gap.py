"""How a simulated arm differs from its nominal model: the twin's domain gap. All off by default."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class DomainGap:
    """Differences between the nominal model and the arm that is simulated instead."""

    tool_offset_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Where the real gripper sits, in the tool frame; the reported tool pose stays nominal."""
    payload_kg: float = 0.0
    """Mass added to the gripper's base."""
    friction_scale: float = 1.0
    """Factor on the sliding friction of every geom."""
    delay_s: float = 0.0
    """From a write to the moment the joint servos follow it."""
    joint_noise_rad: float = 0.0
    """Standard deviation of white noise on the measured joint positions."""
    object_noise_m: float = 0.0
    """Standard deviation of white noise on the measured object positions."""
    seed: int = 0
    """Of the noise. The noise of an episode depends on this and on the scene it starts from."""

    def __post_init__(self) -> None:
        numbers = (*self.tool_offset_m, *dataclasses.astuple(self)[1:])
        if len(self.tool_offset_m) != 3 or not all(map(math.isfinite, numbers)):
            raise ValueError(f"DomainGap: every number must be finite, offsets (3,), got {self}")
        for field in ("delay_s", "joint_noise_rad", "object_noise_m", "payload_kg"):
            if getattr(self, field) < 0.0:
                raise ValueError(f"DomainGap.{field} must be >= 0, got {getattr(self, field)}")
        if not self.friction_scale > 0.0:
            raise ValueError(f"DomainGap.friction_scale must be > 0, got {self.friction_scale}")

    @property
    def changes_model(self) -> bool:
        """Whether the physics differs, beyond delay and noise."""
        return any(self.tool_offset_m) or self.payload_kg > 0.0 or self.friction_scale != 1.0
