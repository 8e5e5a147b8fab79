"""The domain gap of the quickstart: what is different about the arm that the policy meets."""

import dataclasses
from typing import Any

from robo_rl.hardware.twin.domain_gap import DomainGap

QUICKSTART = DomainGap(tool_offset_m=(0.0, 0.016, 0.0), payload_kg=0.3, friction_scale=0.9)


def quickstart(strength: float) -> dict[str, Any] | None:
    """The gap scaled by `strength`, as JSON values: 0 is none at all, 1 is the quickstart's."""
    if strength == 0.0:
        return None
    x, y, z = QUICKSTART.tool_offset_m
    gap = dataclasses.replace(
        QUICKSTART,
        tool_offset_m=(strength * x, strength * y, strength * z),
        payload_kg=strength * QUICKSTART.payload_kg,
        friction_scale=QUICKSTART.friction_scale**strength,
        delay_s=strength * QUICKSTART.delay_s,
        joint_noise_rad=strength * QUICKSTART.joint_noise_rad,
        object_noise_m=strength * QUICKSTART.object_noise_m,
    )
    return dataclasses.asdict(gap)
