"""What the topics of an arm under ros2_control and of its twin are called. Needs no DDS."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ArmTopics:
    """Names of the topics of one arm."""

    joint_states: str
    positions: str
    """Of a forward position controller: `Float64MultiArray`, rad, in the order of the spec."""
    trajectory: str
    """Of a joint trajectory controller."""
    gripper: str
    """`Float64MultiArray` of one number."""
    objects: str = "/objects/{name}/pose"

    def object_pose(self, name: str) -> str:
        """Topic of the pose of one object."""
        return self.objects.format(name=name)


@dataclasses.dataclass(frozen=True)
class TwinTopics:
    """What only a twin has."""

    reset: str = "/twin/reset"
    """JSON: `seq`, `q_rad`, `objects` and `targets` as name -> [x, y, z, w, x, y, z] (wxyz)."""
    status: str = "/twin/status"
    """JSON: `reset` is the `seq` of the last reset that was done; how well time is kept."""
    fault: str = "/twin/fault"
    """JSON: `mute_s`, `deaf_s`: seconds without sending, without listening."""
    truth: str = "/twin/truth"
    """Numbers: see `TwinTruth`."""
