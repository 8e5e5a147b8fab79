"""Balls that cover the UR5e and its Robotiq 2F-85, in the frames of their bodies."""

from collections.abc import Iterable

from robo_rl.hardware.guard.points import ArmBody, BodyPoint
from robo_rl.hardware.robots.ur5e.model import ARM_PREFIX


def _on(
    body: str, name: str, spheres: Iterable[tuple[float, float, float, float]]
) -> tuple[BodyPoint, ...]:
    return tuple(
        BodyPoint(f"{name}_{i}", ARM_PREFIX + body, (x, y, z), r)
        for i, (x, y, z, r) in enumerate(spheres)
    )


# Smallest balls around clusters of the convex hulls of every geom, rounded up by 2 to 4 mm.
LINK_SPHERES: tuple[BodyPoint, ...] = (
    *_on(
        "upper_arm_link",
        "upper_arm",
        (
            (0.001, -0.081, -0.011, 0.086),
            (0.0, 0.0, 0.034, 0.103),
            (0.0, -0.004, 0.163, 0.108),
            (0.0, 0.0, 0.299, 0.107),
            (0.0, -0.008, 0.416, 0.100),
        ),
    ),
    *_on(
        "forearm_link",
        "forearm",
        (
            (0.002, 0.112, -0.014, 0.091),
            (0.002, 0.012, 0.030, 0.093),
            (0.002, 0.010, 0.159, 0.087),
            (0.001, 0.012, 0.277, 0.082),
            (0.002, 0.003, 0.382, 0.073),
        ),
    ),
    *_on("wrist_1_link", "wrist_1", ((0.0, 0.008, 0.0, 0.072), (0.0, 0.119, 0.003, 0.072))),
    *_on("wrist_2_link", "wrist_2", ((0.0, -0.01, 0.0, 0.066), (0.0, 0.019, 0.097, 0.085))),
    *_on("wrist_3_link", "wrist_3", ((0.0, 0.078, 0.0, 0.050),)),
    *_on("robotiq/base", "gripper", ((0.0, 0.0, 0.013, 0.048), (0.0, 0.0, 0.050, 0.048))),
)
"""Arm and gripper housing from the shoulder on."""

FINGER_SPHERES: tuple[BodyPoint, ...] = _on(
    "robotiq/base",
    "finger",
    (
        (0.0, 0.040, 0.078, 0.046),
        (0.0, 0.032, 0.133, 0.045),
        (0.0, -0.040, 0.078, 0.046),
        (0.0, -0.032, 0.133, 0.045),
    ),
)
"""Both fingers at every opening, as spheres."""

FINGER_CORNERS: tuple[BodyPoint, ...] = _on(
    "robotiq/base",
    "finger_corner",
    tuple(
        (x, y, z, 0.0)
        for x in (-0.0145, 0.0145)
        for y, z in (
            (-0.0745, 0.045),
            (-0.0745, 0.1445),
            (-0.026, 0.163),
            (0.026, 0.163),
            (0.0745, 0.1445),
            (0.0745, 0.045),
        )
    ),
)
"""Together with the housing, a hull of the fingers at every opening: exact where they meet a table
(the closed tips reach 18 mm beyond the pinch point)."""

TOOL_POINT = BodyPoint("tool", ARM_PREFIX + "robotiq/base", (0.0, 0.0, 0.145))
"""The pinch point."""

BODY = ArmBody(
    links=LINK_SPHERES,
    fingers=FINGER_SPHERES,
    corners=FINGER_CORNERS,
    tool=TOOL_POINT,
    # The upper arm's inner half is fixed in height near the shoulder; the outer half is lower.
    above_table=(*LINK_SPHERES[3:], *FINGER_CORNERS),
)
