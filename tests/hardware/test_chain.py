"""The chain end to end: whatever is offered, nothing leaves that the arm may not do."""

import dataclasses
import math

import numpy as np
import pytest

from robo_rl.hardware.contracts import (
    ArmCommand,
    BarrierReport,
    CommandMode,
    Lifecycle,
    Reason,
    Verdict,
)
from robo_rl.hardware.errors import NotConnected
from robo_rl.hardware.guard import chain
from robo_rl.hardware.guard.barrier import BarrierConfig
from robo_rl.hardware.guard.chain import GuardConfig
from robo_rl.hardware.guard.controller import ArmController
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.hardware.robots.ur5e.spec import UR5E
from tests.fakes import FakeDevice

LOWER, UPPER = np.array(UR5E.position_lower_rad), np.array(UR5E.position_upper_rad)
SPEED, ACCELERATION = np.array(UR5E.velocity_rad_s), np.array(UR5E.acceleration_rad_s2)
NUMBERS = (math.nan, math.inf, -math.inf, 1e308, -1e308, 1e9, -7.0, 0.0, 1e-320)
PER_TICK = 8


class Hostility:
    """Draws commands of every kind, about half of them acceptable."""

    def __init__(self, seed: int, mode: CommandMode) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.mode = mode
        self.seq = 0
        good = self._good(400)
        bad: list[object] = []
        for values in self._good(200):
            spoiled = values.copy()
            spoiled.flat[rng.integers(spoiled.size)] = rng.choice(NUMBERS)
            bad.append(spoiled)
        bad += [
            np.zeros(0), np.zeros(5), np.zeros(7), np.zeros((6, 6)), np.float64(1.0),
            np.array(["1"] * 6), np.array([None] * 6), np.zeros(6, complex), np.zeros(6, bool),
            [0.0] * 6, None, "home", np.full(6, 10**18), np.zeros((20_000, 6)),
        ]  # fmt: skip
        self.good, self.bad = good, bad
        self.times = [
            np.array([0.05]), np.array([0.02, 0.1, 0.3]), np.array([0.0, 0.5]), None,
            np.array([0.3, 0.1]), np.array([math.nan]), np.array([9.0]), "now", np.zeros(20_000),
        ]  # fmt: skip

    def _good(self, count: int) -> list[np.ndarray]:
        rng = self.rng
        rows = int(rng.integers(1, 4)) if self.mode is CommandMode.JOINT_TRAJECTORY else 0
        shape = (rows, 6) if rows else (6,)
        wide = rng.uniform(-7, 7, (count, *shape))
        near = np.asarray(UR5E.home_rad) + rng.uniform(-0.2, 0.2, (count, *shape))
        return [*wide, *near]

    def draw(self, now_s: float) -> ArmCommand:
        rng = self.rng
        a, b, c, d = rng.random(4)
        values = self._pick(self.good if a < 0.85 else self.bad)
        self.seq += 1
        times = None
        if self.mode is CommandMode.JOINT_TRAJECTORY or a > 0.98:
            times = self.times[int(d * len(self.times))]
            if np.ndim(values) == 2 and c < 0.8:
                times = np.sort(rng.random(len(values))) + 0.01
        seq: object = self.seq if b < 0.93 else self.seq - 3
        if b > 0.99:
            seq = self._pick((None, 1.5, "1", 10**30, math.nan))
            seq = seq if not isinstance(seq, int) else self.seq
        expires: object = now_s + 0.05 * b
        if c < 0.07:
            expires = self._pick((*NUMBERS, now_s - 1.0, now_s, None, "soon", 10**400))
        observed: object = now_s - 0.02 * c
        if d < 0.05:
            observed = self._pick((*NUMBERS, now_s + 5.0, None))
        gripper: object = 2.0 * d - 0.5
        if d > 0.95:
            gripper = self._pick((*NUMBERS, None, "open"))
        mode: object = self.mode
        if a < 0.03:
            mode = self._pick((*CommandMode, "fly", None))
        return ArmCommand(mode, values, gripper, seq, observed, expires, times_s=times)

    def _pick(self, options):
        return options[int(self.rng.integers(len(options)))]


def hostile_state(rng, state):
    """What a broken link shows."""
    kind = rng.integers(6)
    if kind == 0:
        raise NotConnected("cut")
    if kind == 1:
        return dataclasses.replace(state, t_host_s=state.t_host_s - 1.0)
    if kind == 2:
        return dataclasses.replace(state, q_rad=np.where(rng.random(6) < 0.5, math.nan, 0.0))
    if kind == 3:
        return dataclasses.replace(state, valid=False)
    if kind == 4:
        return dataclasses.replace(state, q_rad=np.zeros(3))
    return dataclasses.replace(state, t_host_s=state.t_host_s + 1.0)


def drive(controller, device, hostility, commands):
    """Offer everything; return the length of every tick that was written, and what was accepted."""
    rng = hostility.rng
    ticks = rng.choice([0.001, 0.002, 0.004, 0.01, 0.02], commands // PER_TICK)
    odd = rng.random(len(ticks))
    config = controller.config
    lengths, accepted = [], 0
    faulty = 0
    for tick, strange in zip(ticks, odd, strict=True):
        if strange < 0.01:
            faulty = 3
        device.read_fault = (lambda s: hostile_state(rng, s)) if faulty > 0 else None
        faulty -= 1
        for _ in range(PER_TICK):
            accepted += controller.submit(hostility.draw(device.time_s)).accepted
        dt = float(tick)
        device.time_s += dt
        if strange > 0.99:
            dt = float(rng.choice([math.nan, -1.0, 0.0, 3.0, math.inf]))
        if 0.985 < strange < 0.987:
            device.time_s -= 0.5  # the clock jumps back
        controller.tick(dt)
        lengths.append(min(dt, config.max_tick_s) if dt > 0.0 else config.tick_s)
    return np.array(lengths), accepted


def assert_within_limits(device, start, lengths):
    """Position, velocity and acceleration of everything that was written, from rest at `start`."""
    q = np.vstack([start, *(write[1] for write in device.writes)])
    dq = np.vstack([np.zeros(6), *(write[2] for write in device.writes)])
    gripper = np.array([write[3] for write in device.writes])
    dt = lengths[:, None]
    assert len(lengths) == len(device.writes)
    assert np.isfinite(q).all()
    assert np.isfinite(dq).all()
    assert (q >= LOWER).all()
    assert (q <= UPPER).all()
    assert (np.abs(dq) <= SPEED).all()
    assert (np.abs(np.diff(dq, axis=0)) <= ACCELERATION * dt + 1e-9).all()
    np.testing.assert_allclose(np.diff(q, axis=0), (dq[:-1] + dq[1:]) / 2 * dt, atol=1e-9)
    assert ((gripper >= 0.0) & (gripper <= 1.0)).all()
    return q


# Together a million commands; the seeds run side by side.
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", [CommandMode.JOINT_POSITION, CommandMode.JOINT_VELOCITY])
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_no_hostile_command_leaves_beyond_a_limit(seed, mode, caplog):
    hostile(seed, mode, 150_000, caplog)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_no_hostile_trajectory_leaves_beyond_a_limit(caplog):
    hostile(0, CommandMode.JOINT_TRAJECTORY, 90_000, caplog)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_no_hostile_command_leaves_beyond_a_limit_or_a_barrier(caplog):
    barrier = BarrierConfig(keep_out=((0.45, 0.0, 0.2, 0.06),))
    controller, q = hostile(1, CommandMode.JOINT_VELOCITY, 10_000, caplog, barrier)
    assert min(controller.barrier.min_height(posture) for posture in q) >= -1e-9


def hostile(seed, mode, commands, caplog, barrier=None):
    caplog.set_level("CRITICAL")
    device = FakeDevice()
    start = device.q
    controller = ArmController(device, barrier=barrier, kit=UR5E_KIT if barrier else None)
    controller.connect()
    controller.arm(mode)
    hostility = Hostility(seed, mode)
    lengths, accepted = drive(controller, device, hostility, commands)
    q = assert_within_limits(device, start, lengths)
    soft = UR5E.soft_margin_rad
    assert (q >= LOWER + soft - 1e-9).all()
    assert (q <= UPPER - soft + 1e-9).all()
    assert accepted > 0.2 * commands
    assert np.ptp(q, axis=0).min() > 0.1  # it did move
    reasons = controller.health().reasons
    expected = {"non_finite", "incomplete", "out_of_order", "no_expiry", "expired", "stale_state"}
    expected |= {"invalid_state", "link_lost", "rate_limited", "guard_error"}
    if mode is not CommandMode.JOINT_TRAJECTORY:  # whose values no other mode could hold
        expected.add("wrong_mode")
    assert expected <= set(reasons)
    return controller, q


def command(**changes):
    plain = ArmCommand(CommandMode.JOINT_POSITION, np.zeros(6), 0.5, 1, 100.0, 100.05)
    return dataclasses.replace(plain, **changes)


def why(armed=None, state=None, now_s=100.0, config=None, **changes):
    armed = armed or chain.Armed(Lifecycle.ARMED, False, CommandMode.JOINT_POSITION, None)
    state = state or FakeDevice().read()
    accepted, reason = chain.admit(
        command(**changes), UR5E, config or GuardConfig(), armed, np.zeros(6), now_s, lambda: state
    )
    assert (accepted is None) == (reason is not None)
    return reason


def test_a_plain_command_is_admitted():
    assert why() is None


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (Reason.NON_FINITE, {"values": np.array([0, 0, 0, 0, 0, math.nan])}),
        (Reason.NON_FINITE, {"gripper_closedness": math.inf}),
        (Reason.NON_FINITE, {"t_observation_s": math.nan}),
        (Reason.INCOMPLETE, {"values": np.zeros(5)}),
        (Reason.INCOMPLETE, {"values": [0.0] * 6}),
        (Reason.INCOMPLETE, {"gripper_closedness": None}),
        (Reason.INCOMPLETE, {"seq": None}),
        (Reason.WRONG_MODE, {"mode": CommandMode.JOINT_VELOCITY}),
        (Reason.NO_EXPIRY, {"expires_at_s": math.inf}),
        (Reason.NO_EXPIRY, {"expires_at_s": None}),
        (Reason.NO_EXPIRY, {"expires_at_s": 101.1}),
        (Reason.EXPIRED, {"expires_at_s": 100.0}),
        (Reason.EXPIRED, {"t_observation_s": 99.0}),
        (Reason.EXPIRED, {"t_observation_s": 100.1}),
    ],
)
def test_each_defect_has_its_reason(reason, changes):
    assert why(**changes) is reason


def test_the_first_guard_that_fails_gives_the_reason():
    """finite > complete > armed > state > expiry > order."""
    armed = chain.Armed(Lifecycle.CONNECTED, False, None, 9)
    changes = {"values": np.full(5, math.nan), "expires_at_s": 0.0}
    stale = dataclasses.replace(FakeDevice().read(), t_host_s=0.0)
    assert why(armed, stale, **changes) is Reason.NON_FINITE
    assert why(armed, stale, **changes | {"values": np.zeros(5)}) is Reason.INCOMPLETE
    assert why(armed, stale, expires_at_s=0.0) is Reason.NOT_ARMED
    armed = armed._replace(lifecycle=Lifecycle.ARMED, mode=CommandMode.JOINT_POSITION)
    assert why(armed, stale, expires_at_s=0.0) is Reason.STALE_STATE
    assert why(armed, expires_at_s=0.0) is Reason.EXPIRED
    assert why(armed) is Reason.OUT_OF_ORDER
    assert why(armed, seq=10) is None


@pytest.mark.parametrize(
    ("reason", "armed"),
    [
        (Reason.FAULTED, chain.Armed(Lifecycle.FAULT, False, CommandMode.JOINT_POSITION, None)),
        (Reason.STOPPED, chain.Armed(Lifecycle.HOLDING, True, CommandMode.JOINT_POSITION, None)),
        (Reason.NOT_ARMED, chain.Armed(Lifecycle.CONNECTED, False, None, None)),
        (Reason.NOT_ARMED, chain.Armed(Lifecycle.DISCONNECTED, False, None, None)),
    ],
)
def test_motion_needs_arming(reason, armed):
    assert why(armed) is reason


def test_a_streaming_command_is_followed_for_the_watchdog_time_at_most():
    armed = chain.Armed(Lifecycle.ARMED, False, CommandMode.JOINT_POSITION, None)
    state = FakeDevice().read()
    accepted, _ = chain.admit(
        command(expires_at_s=100.9), UR5E, GuardConfig(), armed, np.zeros(6), 100.0, lambda: state
    )
    np.testing.assert_allclose(accepted.until_s, 100.0 + UR5E.watchdog_s)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (None, {}),
        (Reason.STALE_STATE, {"t_host_s": 100.0 - UR5E.watchdog_s - 0.01}),
        (Reason.STALE_STATE, {"t_host_s": 100.5}),
        (Reason.STALE_STATE, {"t_host_s": math.nan}),
        (Reason.INVALID_STATE, {"valid": False}),
        (Reason.INVALID_STATE, {"q_rad": np.full(6, math.nan)}),
        (Reason.INVALID_STATE, {"dq_rad_s": np.full(6, math.inf)}),
    ],
)
def test_states_are_judged(reason, changes):
    state = dataclasses.replace(FakeDevice().read(), **changes)
    assert chain.check_state(state, 100.0, UR5E.watchdog_s) is reason


def test_no_state_is_a_lost_link():
    assert chain.check_state(None, 100.0, 0.1) is Reason.LINK_LOST


@pytest.mark.parametrize(
    ("verdict", "active", "reasons"),
    [
        (Verdict.PASS, (), ()),
        (Verdict.MODIFIED, ("table/a",), (Reason.BARRIER,)),
        (Verdict.MODIFIED, ("workspace/x_lower",), (Reason.WORKSPACE,)),
        (Verdict.MODIFIED, ("joint/a", "keep_out_0/b"), (Reason.SOFT_LIMIT, Reason.BARRIER)),
        (Verdict.INFEASIBLE, ("table/a",), (Reason.BARRIER_INFEASIBLE,)),
        (Verdict.ERROR, (), (Reason.BARRIER_ERROR,)),
    ],
)
def test_verdicts_have_reasons(verdict, active, reasons):
    still = np.zeros(6)
    report = BarrierReport(verdict, still, still, 0.0, active, 0.0, "", 0.0)
    assert chain.barrier_reasons(report) == reasons


def test_the_hard_clamp_stops_what_nothing_before_it_stopped():
    shaper = chain.make_shaper(UR5E, GuardConfig())
    clamp = chain.HardClamp(UR5E, shaper)
    c, v, dt = np.zeros(6), np.full(6, 0.1), 0.01
    for wrong in (np.full(6, 99.0), np.full(6, -99.0), np.full(6, math.nan)):
        c1, v1, changed = clamp(c, v, wrong, dt)
        assert changed
        assert (np.abs(v1 - v) <= 0.4 + 1e-12).all()
        np.testing.assert_allclose(c1, c + (v + v1) / 2 * dt)
    edge = UPPER - 1e-4
    c1, v1, changed = clamp(edge, v, v, dt)
    assert changed
    assert (c1 <= UPPER).all()


def test_every_limit_is_described_with_its_source():
    text = chain.describe(UR5E, GuardConfig(velocity_scale=0.5, acceleration_rad_s2=8.0))
    assert "1.571 rad/s (spec x 0.5)" in text
    assert "8.0 rad/s^2 (guard config, at most the spec)" in text
    assert "ur_description" in text
    assert "barrier filter: none" in text
    assert "REPORT ONLY" in chain.describe(UR5E, GuardConfig(enforce=False))
    for name in UR5E.joint_names:
        assert name in text


@pytest.mark.parametrize(
    "wrong",
    [
        {"tick_s": 0.0},
        {"tick_s": 0.5},
        {"max_tick_s": math.inf},
        {"velocity_scale": 2.0},
        {"acceleration_rad_s2": -1.0},
        {"creep_rad_s": math.nan},
        {"horizon_s": 0.0},
        {"observation_age_s": -1.0},
        {"tracking_rad": 0.0},
    ],
)
def test_a_wrong_config_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GuardConfig(**wrong)


TRAJECTORY = {"mode": CommandMode.JOINT_TRAJECTORY, "expires_at_s": 100.9}
FOLLOWING = chain.Armed(Lifecycle.ARMED, False, CommandMode.JOINT_TRAJECTORY, None)


@pytest.mark.parametrize(
    ("times", "rows", "reason"),
    [
        ([0.0, 1.0], 2, None),
        ([0.3], 1, None),
        ([0.0, 1.001], 2, Reason.INCOMPLETE),
        ([-0.001, 0.5], 2, Reason.INCOMPLETE),
        ([0.2, 0.2], 2, Reason.INCOMPLETE),
        ([0.1, 0.2], 3, Reason.INCOMPLETE),
        ([0.1, 0.2], 1, Reason.INCOMPLETE),
        ([], 0, Reason.INCOMPLETE),
        ([[0.1, 0.2]], 2, Reason.INCOMPLETE),
        ([0.1, math.inf], 2, Reason.NON_FINITE),
        (np.linspace(0.0, 1.0, 10_000), 10_000, None),
        (np.linspace(0.0, 1.0, 10_001), 10_001, Reason.INCOMPLETE),
    ],
)
def test_a_trajectory_has_a_posture_for_each_rising_time_within_the_horizon(times, rows, reason):
    values = np.zeros((rows, 6))
    assert why(FOLLOWING, values=values, times_s=np.array(times), **TRAJECTORY) is reason


def test_a_trajectory_that_starts_later_starts_where_the_command_is():
    for first, rows in ((0.2, 2), (0.0, 1)):
        values, times = np.full((1, 6), 0.5), np.array([first])
        accepted, _ = chain.admit(
            command(values=values, times_s=times, gripper_closedness=1.5, **TRAJECTORY),
            UR5E, GuardConfig(), FOLLOWING, np.full(6, 0.1), 100.0, FakeDevice().read,
        )  # fmt: skip
        np.testing.assert_array_equal(accepted.times_s, [0.0, first][-rows:])
        np.testing.assert_array_equal(accepted.values[:, 0], [0.1, 0.5][-rows:])
        assert (accepted.until_s, accepted.accepted_s, accepted.gripper) == (100.9, 100.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"expires_at_s": 101.0}, None),
        ({"expires_at_s": 101.001}, Reason.NO_EXPIRY),
        ({"expires_at_s": 100.001}, None),
        ({"expires_at_s": -math.inf}, Reason.NO_EXPIRY),
        ({"t_observation_s": 99.5}, None),
        ({"t_observation_s": 99.499}, Reason.EXPIRED),
        ({"t_observation_s": 100.0 + 5e-7}, None),
        ({"t_observation_s": 100.0 + 5e-6}, Reason.EXPIRED),
        ({"gripper_closedness": np.float32(0.5)}, None),
        ({"gripper_closedness": 1}, None),
        ({"gripper_closedness": "1"}, Reason.INCOMPLETE),
        ({"t_observation_s": None}, Reason.INCOMPLETE),
        ({"seq": np.int64(1)}, None),
        ({"seq": 1.0}, Reason.INCOMPLETE),
        ({"values": np.zeros((1, 6))}, Reason.INCOMPLETE),
        ({"values": np.zeros(6, bool)}, Reason.INCOMPLETE),
        ({"values": np.zeros(6, np.int8)}, None),
    ],
)
def test_the_ends_of_what_is_admitted(changes, reason):
    """One second ahead, half a second back, and a microsecond that clocks may differ by."""
    assert why(**changes) is reason


def test_sequence_numbers_must_rise_and_a_state_be_fresh_and_near():
    for last, reason in ((6, None), (7, Reason.OUT_OF_ORDER), (8, Reason.OUT_OF_ORDER)):
        assert chain.check_order(command(seq=7), last) is reason
    assert chain.check_order(command(seq=-5), None) is None
    state = FakeDevice().read()
    for age, reason in ((0.1, None), (0.101, "stale"), (-5e-7, None), (-5e-6, "stale")):
        aged = dataclasses.replace(state, t_host_s=50.0 - age)
        expected = None if reason is None else Reason.STALE_STATE
        assert chain.check_state(aged, 50.0, 0.1 + 1e-9) is expected, age
    off = state.q_rad + 0.6 * np.eye(6)[4]
    for c, limit, reason in (
        (off, 0.6001, None),
        (off, 0.5999, Reason.TRACKING_ERROR),
        (2 * state.q_rad - off, 0.5999, Reason.TRACKING_ERROR),
        (2 * state.q_rad - off, 0.6001, None),
    ):
        assert chain.check_tracking(c, state, limit) is reason


def test_the_hard_clamp_leaves_alone_what_is_within_every_limit_and_only_that():
    clamp = chain.HardClamp(UR5E, chain.make_shaper(UR5E, GuardConfig()))
    c, dt, one = np.zeros(6), 0.01, np.eye(6)[1]
    v = (SPEED[1] - 0.2) * one
    for v0, v1, ok in (
        (v, v + 0.2 * one, True),  # to the speed limit
        (v, v + 0.201 * one, False),
        (0 * v, ACCELERATION[1] * dt * one, True),
        (0 * v, -ACCELERATION[1] * dt * one, True),
        (0 * v, -ACCELERATION[1] * dt * 1.001 * one, False),
    ):
        c1, out, changed = clamp(c, v0, v1, dt)
        assert changed is not ok
        top = np.minimum(SPEED[1], v0[1] + ACCELERATION[1] * dt)
        assert out[1] == pytest.approx(np.clip(v1[1], v0[1] - ACCELERATION[1] * dt, top))
        np.testing.assert_allclose(c1, c + (v0 + out) / 2 * dt)


@pytest.mark.parametrize("side", [1, -1])
def test_outside_the_hard_limits_the_clamp_lets_a_joint_only_come_back(side):
    clamp = chain.HardClamp(UR5E, chain.make_shaper(UR5E, GuardConfig()))
    c = np.zeros(6)
    c[2] = (UPPER if side == 1 else LOWER)[2] + side * 0.1
    still = np.zeros(6)
    outward, inward = side * 0.1 * np.eye(6)[2], -side * 0.1 * np.eye(6)[2]
    c1, v1, changed = clamp(c, still, outward, 0.01)
    assert changed
    np.testing.assert_array_equal(c1, c)
    np.testing.assert_array_equal(v1, still)
    c1, v1, _ = clamp(c, still, inward, 0.01)
    np.testing.assert_allclose(v1, inward)
    np.testing.assert_allclose(c1, c + inward * 0.005)


@pytest.mark.parametrize(
    "wrong", [{"velocity_scale": 0.0}, {"velocity_scale": -0.5}, {"acceleration_rad_s2": 0.0}]
)
def test_a_limit_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GuardConfig(**wrong)


def test_a_tick_may_be_as_long_as_the_longest_and_limits_as_the_spec_has_them():
    config = GuardConfig(tick_s=0.02, max_tick_s=0.02, velocity_scale=1.0, acceleration_rad_s2=0.1)
    shaper = chain.make_shaper(UR5E, config)
    assert (shaper.max_tick_s, shaper.acceleration.max()) == (0.02, 0.1)
    np.testing.assert_array_equal(shaper.velocity, SPEED)


def test_a_barrier_is_described_with_its_numbers():
    barrier = BarrierConfig(keep_out=((0.4, 0.0, 0.2, 0.06),))
    controller = ArmController(FakeDevice(), barrier=barrier, kit=UR5E_KIT)
    text = chain.describe(UR5E, GuardConfig(), controller.barrier)
    assert f"{len(controller.barrier.names)} constraints, alpha 10.00 1/s (config 10" in text
    assert "band 0.001 m" in text
    assert "table at z = 0.0 m; tool in (0.15, -0.45, 0.0) to (0.7, 0.45, 0.6) m" in text
    assert "((0.4, 0.0, 0.2, 0.06),), margin 0.03 m" in text
    assert "rad/s (spec), 40.0 rad/s^2 (spec)" in text
