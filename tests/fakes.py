"""Scripted peers at the wire, so that what is under test runs as it is."""

from collections.abc import Callable

import numpy as np

from robo_rl.hardware.contracts import ArmSpec, ArmState, Device, Pose
from robo_rl.hardware.robots.ur5e.spec import UR5E

TOOL = Pose(np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0]))


class FakeDevice(Device):
    """An arm that is where it was last told to be. Its clock runs only when it is moved."""

    def __init__(self, spec: ArmSpec = UR5E, *, simulated: bool = False) -> None:
        self.spec = spec
        self.simulated = simulated
        self.time_s = 100.0
        self.q = np.array(spec.home_rad)
        self.dq = np.zeros(spec.joints)
        self.writes: list[tuple[float, np.ndarray, np.ndarray, float]] = []
        self.read_fault: Callable[[ArmState], ArmState] | None = None
        """Changes or raises instead of the true state."""
        self.write_fault: Exception | None = None
        self.opened = 0
        self.closed = 0
        self._seq = 0

    def open(self) -> None:
        self.opened += 1

    def close(self) -> None:
        self.closed += 1

    def now_s(self) -> float:
        return self.time_s

    def read(self) -> ArmState:
        self._seq += 1
        state = ArmState(
            t_host_s=self.time_s,
            t_source_s=self.time_s,
            seq=self._seq,
            q_rad=self.q,
            dq_rad_s=self.dq,
            effort_nm=self.dq,
            tool=TOOL,
            gripper_closedness=0.25,
            gripper_force_n=0.0,
        )
        return state if self.read_fault is None else self.read_fault(state)

    def write(self, q_rad: np.ndarray, dq_rad_s: np.ndarray, gripper_closedness: float) -> None:
        if self.write_fault is not None:
            raise self.write_fault
        self.writes.append((self.time_s, q_rad, dq_rad_s, gripper_closedness))
        self.q = q_rad

    def pass_time(self, until_s: float) -> None:
        self.time_s = max(self.time_s, until_s)
