"""What the certificate of the barrier filter is for: a QP's answer that is wrong is not sent."""

import numpy as np

from robo_rl.hardware.guard.barrier import BarrierConfig, BarrierFilter
from robo_rl.hardware.guard.shaping import Shaper
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.hardware.robots.ur5e.spec import UR5E

HOME = np.array(UR5E.home_rad)
DT = 0.01
FAR = 90.0


def _make(config):
    """A filter whose QP always says that what is wished for is fine."""
    shaper = Shaper(UR5E)
    wished = lambda nominal, rows, least, lower, upper: nominal  # noqa: E731
    return shaper, BarrierFilter(UR5E_KIT, shaper, config, solver=wished)


def _behind_wall(x):
    return BarrierConfig(
        table_z_m=None, workspace_lower_m=(x, -FAR, -FAR), workspace_upper_m=(FAR, FAR, FAR)
    )


def _stop(shaper, barrier, c, v):
    """Least height on the way of a full stop."""
    least = barrier.min_height(c)
    while v.any():
        slower = shaper.brake(c, v, DT)
        c, v = c + 0.5 * (v + slower) * DT, slower
        least = min(least, barrier.min_height(c))
    return least


def _after_a_tick(shaper, barrier, c, v):
    """Least height of a filtered tick that asks to go on, and of a full stop behind it."""
    bounds = shaper.bounds(c, v, DT)
    sent = barrier.filter(c, v, np.clip(v, bounds.lower, bounds.upper), DT, bounds).filtered_rad_s
    return _stop(shaper, barrier, c + 0.5 * (v + sent) * DT, sent)


def test_a_tick_after_which_the_arm_could_not_stop_in_time_is_not_sent():
    """Straight at the table at 2.5 rad/s: braking now ends 3 mm above it, a tick later below it,
    while the tick itself stays centimetres away."""
    shaper, barrier = _make(BarrierConfig(workspace_lower_m=None, workspace_upper_m=None))
    lowest = int(np.argmin(barrier.heights(HOME)))
    down = -np.sign(barrier.gradients()[lowest])
    v = 2.5 * down
    near, far = 0.0, 1.0
    for _ in range(40):
        middle = 0.5 * (near + far)
        if _stop(shaper, barrier, HOME + middle * down, v) > 0.003:
            near = middle
        else:
            far = middle
    c = HOME + near * down
    assert barrier.min_height(c + v * DT) > 0.01
    assert _stop(shaper, barrier, c + v * DT, v) < 0.0
    assert _after_a_tick(shaper, barrier, c, v) >= 0.0


def test_the_way_of_a_stop_bends_towards_a_wall_and_the_certificate_knows_by_how_much():
    """The stretched arm turns about its base, along the wall at first: x falls by r (1 - cos)."""
    c = HOME + np.array([0.0, 1.25, -1.5, 0.0, 0.0, 0.0])  # the tool is far out
    _, barrier = _make(_behind_wall(0.0))
    row = barrier.names.index("workspace/x_lower")

    def slope(turn):
        barrier.heights(c + turn * np.eye(6)[0])
        return barrier.gradients()[row][0]

    low, high = -1.5, 1.5
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if slope(low) * slope(middle) > 0.0 else (low, middle)
    c[0] += low
    v = 3.0 * np.eye(6)[0]
    reach = barrier.heights(c)[row]
    further = _stop(Shaper(UR5E), barrier, c + v * DT, v)
    shaper, barrier = _make(_behind_wall(reach - 0.95 * (reach - further)))
    assert _stop(shaper, barrier, c, v) > 0.0
    assert _stop(shaper, barrier, c + v * DT, v) < 0.0
    assert _after_a_tick(shaper, barrier, c, v) >= 0.0
