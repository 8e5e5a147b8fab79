"""What the toolkit must know of a robot: one frozen object, whatever the arm."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import mujoco

from robo_rl.hardware.bridges.topics import ArmTopics
from robo_rl.hardware.contracts import ArmSpec, Device
from robo_rl.hardware.guard.points import ArmBody
from robo_rl.hardware.twin.mujoco_device import SceneNames

if TYPE_CHECKING:  # only a robot that is opened needs DDS
    from robo_rl.hardware.bridges.dds import Ros2Link

Corner = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Chain:
    """The model that inverse kinematics solves on, where it is not the nominal arm itself."""

    model: Callable[[], mujoco.MjModel]
    joints: tuple[str, ...]
    """Hinges in this model, in the order of the spec."""
    site: str
    """Site at the end of the chain, rigidly joined to the tool."""
    scene_site: str
    """The same site in a scene."""


@dataclasses.dataclass(frozen=True)
class RobotKit:
    """One robot: its limits, models, body, topics. In every model the base frame is the world."""

    spec: ArmSpec
    model: Callable[[], mujoco.MjModel]
    """The nominal arm and gripper alone. Every call may return the same model: change a copy."""
    world: Callable[[], mujoco.MjSpec]
    """The arm as it is simulated: with position servos in the order of the spec, floor, light and a
    camera `front`. A new one with each call, for a task to furnish."""
    names: SceneNames
    """What the parts of the arm are called in a scene, joints and tool site also in `model`; no
    objects, no targets."""
    body: ArmBody
    """Points and balls of the nominal arm that cover it, for the barrier filter."""
    workspace_m: tuple[Corner, Corner]
    """Lower and upper corner of where relative tool actions may send the tool."""
    tool_box_m: tuple[Corner, Corner]
    """Lower and upper corner of the box that the barrier filter keeps the tool in: the workspace
    with room to swing."""
    distal_body: str
    """Distances to keep-out regions are measured from this body and all that it carries."""
    topics: ArmTopics
    """Where the arm is found under ROS 2."""
    fingers: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Finger joint -> its position at closedness 1, to pose a gripper in a film."""
    surface_group: int = 2
    """MuJoCo's group of the geoms that are the surface of the arm."""
    chain: Chain | None = None
    """None: inverse kinematics solves on `model`, from the tool's site."""
    device: "Callable[[Ros2Link, tuple[str, ...], float], Device] | None" = None
    """(link, objects, open_timeout_s) -> the real arm. None: ros2_control on `topics`."""

    def __post_init__(self) -> None:
        if len(self.names.arm_joints) != self.spec.joints:
            raise ValueError(
                f"RobotKit {self.name}: names.arm_joints must be the {self.spec.joints} joints of "
                f"the spec, got {self.names.arm_joints}"
            )
        if self.names.objects or self.names.targets:
            raise ValueError(f"RobotKit {self.name}: names of objects belong to a scene")
        for field in ("workspace_m", "tool_box_m"):
            low, high = getattr(self, field)
            if not all(a < b for a, b in zip(low, high, strict=True)):
                raise ValueError(
                    f"RobotKit {self.name}: {field} must be a lower and an upper corner, "
                    f"got {low} and {high}"
                )

    @property
    def name(self) -> str:
        """As the spec has it."""
        return self.spec.name
