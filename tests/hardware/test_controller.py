import dataclasses
import math
import threading

import numpy as np
import pytest

from robo_rl.hardware.contracts import (
    ArmCommand,
    CommandMode,
    Lifecycle,
    Reason,
    StopKind,
    Verdict,
)
from robo_rl.hardware.errors import (
    Faulted,
    HardwareError,
    NotArmed,
    NotConnected,
    StaleState,
    UnsupportedMode,
)
from robo_rl.hardware.guard.barrier import BarrierConfig
from robo_rl.hardware.guard.chain import GuardConfig
from robo_rl.hardware.guard.controller import ArmController
from robo_rl.hardware.guard.motion import _interpolate
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.hardware.robots.ur5e.spec import UR5E
from tests.fakes import FakeDevice

HOME = np.array(UR5E.home_rad)
POSITION, VELOCITY = CommandMode.JOINT_POSITION, CommandMode.JOINT_VELOCITY
TRAJECTORY = CommandMode.JOINT_TRAJECTORY
DT = 0.01


class Rig:
    """A controller over a fake arm, and a policy that counts."""

    def __init__(self, mode=POSITION, armed=True, spec=UR5E, **options):
        self.device = FakeDevice(spec, simulated=options.pop("simulated", False))
        self.robot = ArmController(self.device, GuardConfig(**options.pop("guard", {})), **options)
        self.mode, self.seq = mode, 0
        if armed:
            self.robot.connect()
            self.robot.arm(mode)

    def offer(self, values, expires_s=0.09, **changes):
        self.seq += 1
        now = self.device.time_s
        plain = ArmCommand(self.mode, np.asarray(values), 0.5, self.seq, now, now + expires_s)
        return self.robot.submit(dataclasses.replace(plain, **changes))

    def tick(self, count=1, dt=DT):
        for _ in range(count):
            self.robot.tick(dt)
            self.device.time_s += dt

    def velocity(self):
        return self.device.writes[-1][2]

    def stream(self, values, seconds):
        for _ in range(round(seconds / 0.05)):
            assert self.offer(values).accepted
            self.tick(5)


@pytest.fixture
def rig():
    return Rig()


def test_connecting_neither_moves_nor_writes():
    rig = Rig(armed=False)
    assert rig.robot.lifecycle is Lifecycle.DISCONNECTED
    rig.robot.connect()
    assert rig.robot.lifecycle is Lifecycle.CONNECTED
    rig.tick(5)
    assert rig.device.writes == []


def test_the_constructor_does_no_io():
    assert Rig(armed=False).device.opened == 0


def test_arming_holds_the_measured_position(rig):
    assert rig.robot.lifecycle is Lifecycle.ARMED
    rig.tick(3)
    assert len(rig.device.writes) == 3
    for _, q, dq, gripper in rig.device.writes:
        np.testing.assert_array_equal(q, HOME)
        np.testing.assert_array_equal(dq, 0.0)
        assert gripper == 0.25


def test_a_command_makes_it_stream_and_arrive(rig):
    target = HOME + 0.1
    receipt = rig.offer(target)
    assert receipt.accepted
    assert rig.robot.lifecycle is Lifecycle.STREAMING
    rig.stream(target, 0.5)
    np.testing.assert_allclose(rig.device.q, target, atol=1e-9)
    assert rig.device.writes[-1][3] == 0.5
    np.testing.assert_array_equal(rig.robot.last_receipt.sent_rad, rig.device.q)


def test_a_velocity_is_held_until_it_expires():
    rig = Rig(VELOCITY)
    rig.stream(np.full(6, 0.2), 0.5)
    np.testing.assert_allclose(rig.velocity(), 0.2)
    # 5 ms of ramp at 40 rad/s^2 is less than a tick, in which the mean is half.
    np.testing.assert_allclose(rig.device.q - HOME, 0.2 * (0.5 - DT / 2))


def test_a_trajectory_is_followed_between_its_waypoints():
    rig = Rig(TRAJECTORY)
    way = HOME + np.array([[0.0] * 6, [0.2] * 6, [0.2] * 6])
    assert rig.offer(way, expires_s=0.9, times_s=np.array([0.0, 0.4, 0.6])).accepted
    rig.tick(20)
    np.testing.assert_allclose(rig.device.q, HOME + 0.1, atol=0.01)
    rig.tick(30)
    np.testing.assert_allclose(rig.device.q, HOME + 0.2, atol=1e-9)


def test_a_trajectory_starts_where_the_command_is():
    rig = Rig(TRAJECTORY)
    assert rig.offer(HOME[None] + 0.2, expires_s=0.9, times_s=np.array([0.4])).accepted
    rig.tick(20)
    np.testing.assert_allclose(rig.device.q, HOME + 0.1, atol=0.01)


@pytest.mark.parametrize("cause", ["expiry", "stale", "invalid", "link", "clock", "tracking"])
def test_what_cannot_be_followed_is_braked_and_resumes_with_a_new_command(cause):
    rig = Rig(VELOCITY)
    rig.stream(np.full(6, 1.0), 0.2)
    assert rig.offer(np.full(6, 1.0)).accepted
    replace = dataclasses.replace
    faults = {
        "stale": lambda s: replace(s, t_host_s=s.t_host_s - 0.2),
        "invalid": lambda s: replace(s, q_rad=np.full(6, math.nan), valid=False),
        "link": lambda s: (_ for _ in ()).throw(NotConnected("cut")),
        "tracking": lambda s: replace(s, q_rad=s.q_rad + 1.0),
    }
    rig.device.read_fault = faults.get(cause)
    rig.device.time_s += {"expiry": 0.1, "clock": -0.5}.get(cause, 0.0)
    speeds = []
    for _ in range(10):
        rig.tick()
        speeds.append(rig.velocity()[0])
    # 1 rad/s at 40 rad/s^2 in ticks of 0.01 s
    np.testing.assert_allclose(speeds, [0.6, 0.2, *[0.0] * 8], atol=1e-9)
    assert rig.robot.lifecycle is Lifecycle.HOLDING
    reason = {
        "expiry": "expired",
        "stale": "stale_state",
        "invalid": "invalid_state",
        "link": "link_lost",
        "clock": "stale_state",
        "tracking": "tracking_error",
    }[cause]
    assert rig.robot.health().reasons[reason] >= 1
    assert Reason(reason) in rig.robot.last_receipt.reasons
    rig.device.read_fault = None
    rig.tick(5)  # the fault is gone, but nothing moves on its own
    np.testing.assert_array_equal(rig.velocity(), 0.0)
    assert rig.offer(np.full(6, 1.0)).accepted
    rig.tick(3)
    assert rig.robot.lifecycle is Lifecycle.STREAMING
    assert rig.velocity()[0] > 0.5


@pytest.mark.parametrize("way_to_stop", ["hold", "ramp"])
def test_an_operators_hold_lasts_until_armed_again(way_to_stop):
    rig = Rig(VELOCITY)
    rig.stream(np.full(6, 1.0), 0.2)
    rig.robot.hold() if way_to_stop == "hold" else rig.robot.stop(StopKind.RAMP)
    assert rig.robot.lifecycle is Lifecycle.HOLDING
    rig.tick(5)
    np.testing.assert_array_equal(rig.velocity(), 0.0)
    assert rig.offer(np.ones(6)).reasons == (Reason.STOPPED,)
    rig.robot.arm(VELOCITY)
    assert rig.robot.lifecycle is Lifecycle.ARMED
    assert rig.offer(np.ones(6)).accepted


def test_stop_hold_freezes_at_once():
    rig = Rig(VELOCITY)
    rig.stream(np.full(6, 1.0), 0.2)
    before = rig.device.q
    rig.robot.stop(StopKind.HOLD)
    np.testing.assert_array_equal(rig.device.q, before)
    np.testing.assert_array_equal(rig.velocity(), 0.0)
    rig.tick(3)
    np.testing.assert_array_equal(rig.device.q, before)


def test_stop_is_safe_in_every_state():
    rig = Rig(armed=False)
    for kind in StopKind:
        rig.robot.stop(kind)
    rig.robot.connect()
    for kind in StopKind:
        rig.robot.stop(kind)
    assert rig.robot.lifecycle is Lifecycle.CONNECTED
    assert rig.device.writes == []
    rig.robot.arm(POSITION)
    rig.device.write_fault = NotConnected("cut")
    for kind in StopKind:
        rig.robot.stop(kind)
    assert rig.robot.lifecycle is Lifecycle.HOLDING


def test_disarming_brakes_first_and_then_leaves_the_arm_alone():
    rig = Rig(VELOCITY)
    rig.stream(np.full(6, 1.0), 0.2)
    rig.robot.disarm()
    assert rig.robot.lifecycle is Lifecycle.CONNECTED
    count = len(rig.device.writes)
    rig.tick(10)
    assert [w[2][0] for w in rig.device.writes[count:]] == pytest.approx([0.6, 0.2, 0.0])
    assert rig.offer(np.ones(6)).reasons == (Reason.NOT_ARMED,)


def test_disconnect_holds_closes_and_never_raises():
    rig = Rig(VELOCITY)
    rig.stream(np.full(6, 1.0), 0.2)
    rig.device.write_fault = NotConnected("cut")
    rig.robot.disconnect()
    rig.robot.disconnect()
    assert rig.device.closed == 1
    assert rig.robot.lifecycle is Lifecycle.DISCONNECTED
    rig.tick()
    rig.device.write_fault = None
    rig.robot.connect()
    assert rig.robot.lifecycle is Lifecycle.CONNECTED  # never armed by a reconnect


@pytest.mark.parametrize(
    ("error", "match", "fault"),
    [
        (
            StaleState,
            r"0.500 s old.*clock of its computer",
            lambda s: dataclasses.replace(s, t_host_s=s.t_host_s - 0.5),
        ),
        (HardwareError, "invalid", lambda s: dataclasses.replace(s, valid=False)),
        (HardwareError, "moving", lambda s: dataclasses.replace(s, dq_rad_s=np.full(6, 0.3))),
        (HardwareError, "grip", lambda s: dataclasses.replace(s, gripper_closedness=math.nan)),
    ],
)
def test_arming_needs_a_fresh_valid_state_at_rest(error, match, fault):
    rig = Rig(armed=False)
    rig.robot.connect()
    rig.device.read_fault = fault
    with pytest.raises(error, match=match):
        rig.robot.arm(POSITION)
    assert rig.robot.lifecycle is Lifecycle.CONNECTED


def test_lifecycle_errors_say_what_is_wrong(rig):
    bare = Rig(armed=False)
    with pytest.raises(NotConnected):
        bare.robot.arm(POSITION)
    with pytest.raises(NotConnected):
        bare.robot.disarm()
    with pytest.raises(NotConnected):
        bare.robot.latest()
    with pytest.raises(NotArmed):
        bare.robot.hold()
    with pytest.raises(HardwareError, match="already"):
        rig.robot.connect()
    rig.offer(HOME)
    with pytest.raises(HardwareError, match="hold"):
        rig.robot.arm(POSITION)
    spec = dataclasses.replace(UR5E, modes=(POSITION,))
    with pytest.raises(UnsupportedMode, match="joint_position"):
        Rig(VELOCITY, spec=spec)


def test_a_failed_write_is_a_fault_until_an_operator_clears_it():
    rig = Rig(VELOCITY)
    rig.stream(np.full(6, 1.0), 0.2)
    rig.offer(np.full(6, 1.0))
    rig.device.write_fault = OSError("cable")
    rig.tick(2)
    assert rig.robot.lifecycle is Lifecycle.FAULT
    assert "cable" in rig.robot.health().fault
    rig.device.write_fault = None
    last = rig.device.q
    rig.tick(3)
    np.testing.assert_array_equal(rig.device.q, last)
    np.testing.assert_array_equal(rig.velocity(), 0.0)
    assert rig.offer(np.ones(6)).reasons == (Reason.FAULTED,)
    with pytest.raises(Faulted, match="cable"):
        rig.robot.arm(VELOCITY)
    rig.robot.disarm()
    assert rig.robot.lifecycle is Lifecycle.FAULT
    with pytest.raises(ValueError, match="who"):
        rig.robot.clear_fault("", "because")
    rig.robot.clear_fault("ann", "cable replaced")
    assert rig.robot.lifecycle is Lifecycle.CONNECTED
    with pytest.raises(HardwareError, match="no fault"):
        rig.robot.clear_fault("ann", "again")


@pytest.mark.parametrize("broken", ["bounds", "toward", "brake"])
def test_a_guard_that_raises_means_braking_or_standing_still(rig, broken, monkeypatch):
    rig.offer(HOME + 0.5)
    rig.tick(4)
    before, speed = rig.device.q, rig.velocity()[0]

    def fail(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(rig.robot._motion._shaper, broken, fail)
    if broken == "brake":
        rig.device.time_s += 1.0  # so that it is needed
    rig.tick(10)
    assert rig.robot.lifecycle is Lifecycle.HOLDING
    assert rig.robot.health().reasons["guard_error"] >= 1
    np.testing.assert_array_equal(rig.velocity(), 0.0)
    # at most the way of braking: v^2 / 2a, and a tick
    assert (rig.device.q - before).max() <= speed**2 / 80 + speed * DT


@pytest.mark.parametrize("dt", [0.0, -1.0, math.nan])
def test_a_tick_of_no_length_is_not_evaluated(rig, dt):
    rig.offer(HOME + 0.5)
    rig.tick(3)
    rig.robot.tick(dt)
    assert rig.robot.health().reasons["guard_error"] == 1
    assert rig.robot.lifecycle is Lifecycle.HOLDING


def test_a_late_tick_moves_no_further_than_the_longest_allowed():
    rig = Rig(VELOCITY, guard={"max_tick_s": 0.02})
    rig.offer(np.ones(6))
    rig.tick(5)
    before = rig.device.q
    rig.offer(np.ones(6))
    rig.robot.tick(0.5)
    np.testing.assert_allclose(rig.device.q - before, 0.02)


def test_report_only_writes_the_raw_target_as_a_step():
    """Bit for bit and at once; NaN velocities tell the device that none belongs to it."""
    rig = Rig(guard={"enforce": False}, simulated=True)
    rng = np.random.default_rng(0)
    for _ in range(50):
        target = HOME + rng.uniform(-0.5, 0.5, 6)
        rig.offer(target)
        rig.robot.advance(0.05)
        for _, q, dq, gripper in rig.device.writes[-5:]:
            np.testing.assert_array_equal(q, target)
            assert np.isnan(dq).all()
            assert gripper == 0.5
        np.testing.assert_array_equal(rig.robot.last_receipt.sent_rad, target)
        assert Reason.RATE_LIMITED in rig.robot.last_receipt.reasons


def test_report_only_still_refuses_what_is_no_command_and_still_holds():
    rig = Rig(guard={"enforce": False})
    target = HOME + 0.3
    rig.offer(target)
    rig.tick()
    assert rig.offer(np.full(6, math.nan)).reasons == (Reason.NON_FINITE,)
    rig.tick(20)
    assert rig.robot.lifecycle is Lifecycle.HOLDING
    np.testing.assert_array_equal(rig.device.q, target)


def test_report_only_reports_the_barrier_but_does_not_obey_it():
    rig = Rig(guard={"enforce": False}, barrier=BarrierConfig(table_z_m=0.3), kit=UR5E_KIT)
    target = HOME + np.array([0, 0.5, 0, 0, 0, 0])
    rig.stream(target, 0.5)
    np.testing.assert_array_equal(rig.device.q, target)
    assert rig.robot.health().reasons["barrier"] > 0


def test_the_barrier_is_obeyed_and_reported():
    rig = Rig(barrier=BarrierConfig(table_z_m=0.3), kit=UR5E_KIT)
    rig.stream(HOME + np.array([0, 0.5, 0, 0, 0, 0]), 0.5)
    assert all(rig.robot.barrier.min_height(w[1]) >= 0.0 for w in rig.device.writes)
    receipt = rig.robot.last_receipt
    assert receipt.barrier.verdict is Verdict.MODIFIED
    assert any(name.startswith("table/") for name in receipt.barrier.active)
    assert Reason.BARRIER in receipt.reasons


def test_advance_ticks_on_the_simulators_clock():
    rig = Rig(simulated=True)
    rig.offer(HOME + 0.1)
    start = rig.device.time_s
    state = rig.robot.advance(0.05)
    times = [write[0] - start for write in rig.device.writes]
    np.testing.assert_allclose(times, [0.0, 0.01, 0.02, 0.03, 0.04])
    np.testing.assert_allclose([state.t_host_s, rig.device.time_s], start + 0.05)
    assert rig.robot.health().ticks == 5


def test_advance_keeps_an_absolute_schedule_and_counts_missed_deadlines():
    rig = Rig()
    start = rig.device.time_s
    rig.robot.advance(0.05)
    rig.device.time_s += 0.007  # the policy thinks
    rig.robot.advance(0.05)
    np.testing.assert_allclose(rig.device.time_s, start + 0.1)
    assert rig.robot.health().deadline_misses == 0
    rig.device.time_s += 0.045
    rig.robot.advance(0.05)
    assert rig.robot.health().deadline_misses > 0
    np.testing.assert_allclose(rig.robot.health().worst_lateness_s, 0.035)
    with pytest.raises(ValueError, match="period_s"):
        rig.robot.advance(0.0)


def test_commands_may_come_from_another_thread():
    rig = Rig(VELOCITY)
    done = threading.Event()

    def policy():
        for _ in range(300):
            rig.offer(np.full(6, 0.1))
        done.set()

    thread = threading.Thread(target=policy)
    thread.start()
    while not done.is_set():
        rig.robot.tick(DT)
    thread.join()
    rig.robot.tick(DT)
    assert rig.robot.last_receipt.seq == 300


class Ear:
    def __init__(self, fails=False):
        self.heard, self.fails = [], fails

    def __getattr__(self, name):
        def hear(*facts):
            if self.fails:
                raise RuntimeError("deaf")
            self.heard.append((name, facts))

        return hear


def test_listeners_hear_states_commands_and_receipts(rig):
    ear, deaf = Ear(), Ear(fails=True)
    rig.robot.listeners.extend([deaf, ear])
    rig.offer(HOME + 0.1)
    rig.tick(2)
    assert deaf not in rig.robot.listeners
    assert {name for name, _ in ear.heard} == {"on_state", "on_command", "on_receipt"}
    receipts = [facts[0] for name, facts in ear.heard if name == "on_receipt"]
    assert len(receipts) == 2
    np.testing.assert_array_equal(receipts[-1].sent_rad, rig.device.q)


def test_a_refused_command_leaves_the_accepted_one_in_force(rig):
    target = HOME + 0.02
    rig.offer(target)
    refused = rig.offer(np.full(6, math.inf))
    assert not refused.accepted
    rig.tick(8)
    np.testing.assert_allclose(rig.device.q, target, atol=1e-9)


def test_sequence_numbers_start_anew_with_arming(rig):
    rig.offer(HOME, seq=500)
    assert rig.offer(HOME, seq=500).reasons == (Reason.OUT_OF_ORDER,)
    rig.robot.hold()
    rig.robot.arm(POSITION)
    assert rig.offer(HOME, seq=1).accepted


def test_a_target_beyond_the_soft_limits_ends_at_them(rig):
    receipt = rig.offer(HOME + np.array([0, 0, 9.0, 0, 0, 0]))
    assert receipt.accepted
    rig.stream(HOME + np.array([0, 0, 9.0, 0, 0, 0]), 2.0)
    np.testing.assert_allclose(rig.device.q[2], math.pi - 0.05, atol=1e-6)
    assert Reason.SOFT_LIMIT in rig.robot.last_receipt.reasons


@pytest.mark.parametrize(
    ("guard", "top_speed"), [({"velocity_scale": 0.1}, 0.1 * math.pi), ({}, math.pi)]
)
def test_the_velocity_scale_is_kept(guard, top_speed):
    rig = Rig(VELOCITY, guard=guard)
    rig.stream(np.full(6, 99.0), 0.3)
    np.testing.assert_allclose(max(w[2].max() for w in rig.device.writes), top_speed)


def test_health_tells_ages(rig):
    rig.offer(HOME)
    rig.tick(3)
    health = rig.robot.health()
    np.testing.assert_allclose([health.command_age_s, health.state_age_s], [0.03, 0.01])
    assert health.lifecycle is Lifecycle.STREAMING


def test_waypoints_are_held_before_the_first_and_after_the_last_and_joined_by_lines():
    times, values = np.array([1.0, 2.0, 4.0]), np.array([[1.0], [3.0], [-1.0]])
    at = {0.5: 1.0, 1.0: 1.0, 1.5: 2.0, 2.0: 3.0, 3.0: 1.0, 4.0: -1.0, 9.0: -1.0}
    got = {t: float(_interpolate(times, values, t)[0]) for t in at}
    assert got == pytest.approx(at)


def test_ages_are_differences_and_lateness_too_also_early_in_the_life_of_a_clock():
    """Clocks of simulators start at zero."""
    rig = Rig(armed=False)
    rig.device.time_s = 0.02
    rig.robot.connect()
    rig.robot.arm(POSITION)
    rig.offer(HOME)
    rig.tick(3)
    assert rig.robot.health().command_age_s == pytest.approx(0.03)
    assert rig.robot.health().state_age_s == pytest.approx(0.01)
    late = Rig(armed=False)
    late.device.time_s = 0.0
    late.robot.connect()
    wait = late.device.pass_time
    late.device.pass_time = lambda until_s: wait(until_s + 0.004)
    late.robot.advance(0.02)
    # The first of two ticks ends 4 ms late; the second is due at 20 ms and ends at 24 ms.
    assert late.robot.health().worst_lateness_s == pytest.approx(0.004)
    assert late.robot.health().deadline_misses == 0
    late.device.pass_time = lambda until_s: wait(until_s + 0.011)
    late.robot.advance(0.02)
    assert late.robot.health().deadline_misses == 2


@pytest.mark.parametrize("dt", [0.0, -0.5, math.nan])
def test_a_tick_of_no_length_brakes_as_one_of_the_usual_length_would(dt):
    """1 rad/s less 40 rad/s^2 for 10 ms."""
    rig = Rig(VELOCITY)
    rig.stream(np.full(6, 1.0), 0.2)
    before = rig.device.q
    rig.robot.tick(dt)
    np.testing.assert_allclose(rig.velocity(), 0.6)
    np.testing.assert_allclose(rig.device.q - before, 0.008)


def test_a_guard_that_fails_is_logged_with_what_it_failed_of(rig, monkeypatch, caplog):
    monkeypatch.setattr(rig.robot._motion, "brake", lambda dt: 1 / 0)
    rig.robot.tick(DT)
    assert "tick: guard failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_command_that_cannot_be_judged_is_refused(rig, monkeypatch, caplog):
    monkeypatch.setattr(rig.device, "now_s", lambda: 1 / 0)
    receipt = rig.robot.submit(ArmCommand(POSITION, HOME, 0.5, 1, 100.0, 100.1))
    assert (receipt.accepted, receipt.reasons) == (False, (Reason.GUARD_ERROR,))
    assert "ZeroDivisionError" in caplog.text
    monkeypatch.undo()
    assert rig.robot.health().reasons == {"guard_error": 1}
    assert rig.robot.lifecycle is Lifecycle.ARMED


def reads_of(rig):
    return rig.device._seq


def test_a_simulated_arm_is_not_read_again_while_its_state_is_fresh():
    """A simulator's state changes only when it is stepped, and reading it is what costs: one of up
    to 45 ms is good enough to guard with, while a command is followed."""
    rig = Rig(VELOCITY, simulated=True)
    rig.tick()
    assert rig.offer(np.zeros(6)).accepted
    rig.tick()
    before = reads_of(rig)
    state = rig.device.time_s - DT
    for at_s, again in ((state, 0), (state + 0.03, 0), (state + 0.0449, 0), (state + 0.0451, 1)):
        rig.device.time_s = at_s if at_s > state else state + 0.01
        rig.robot.tick(DT)
        assert reads_of(rig) - before == again, at_s - state
    real = Rig(VELOCITY)
    real.offer(np.zeros(6))
    before = reads_of(real)
    real.tick(3)
    assert reads_of(real) - before == 3


def test_the_latest_state_is_read_in_every_state_but_that_of_a_simulator_that_stood_still():
    rig = Rig(armed=False)
    with pytest.raises(NotConnected):
        rig.robot.latest()
    rig.robot.connect()
    seen = [rig.robot.latest().seq]
    rig.robot.arm(VELOCITY)
    for prepare in (
        lambda: None,
        lambda: rig.offer(np.zeros(6)),
        rig.robot.hold,
        lambda: (setattr(rig.device, "write_fault", OSError("cable")), rig.tick()),
    ):
        prepare()
        seen.append(rig.robot.latest().seq)
        assert math.isfinite(rig.robot.health().state_age_s)
    assert rig.robot.lifecycle is Lifecycle.FAULT
    assert seen == sorted(set(seen))
    still = Rig(VELOCITY, simulated=True)
    state = still.robot.latest()
    assert still.robot.latest() is state
    still.device.time_s -= 0.001  # a state from after now is the newest too
    assert still.robot.latest() is state
    still.device.time_s += 0.002
    assert still.robot.latest().seq == state.seq + 1
    still.robot.disarm()
    count = reads_of(still)
    assert still.robot.latest().seq == count + 1


def test_a_state_that_was_heard_of_is_not_told_again(rig):
    ear = Ear()
    rig.robot.listeners.append(ear)
    rig.device.read_fault = lambda s: dataclasses.replace(s, seq=5)
    rig.tick(3)
    rig.device.read_fault = lambda s: dataclasses.replace(s, seq=6)
    rig.tick(2)
    assert [facts[0].seq for name, facts in ear.heard if name == "on_state"] == [5, 6]


def test_an_arm_without_a_gripper_is_sent_an_open_one():
    rig = Rig(spec=dataclasses.replace(UR5E, gripper=None))
    rig.tick()
    assert rig.device.writes[-1][3] == 0.0


@pytest.mark.parametrize(("measured", "sent"), [(-0.1, 0.0), (0.4, 0.4), (1.2, 1.0)])
def test_arming_keeps_the_gripper_as_it_is_within_its_range(measured, sent):
    rig = Rig(armed=False)
    rig.robot.connect()
    rig.device.read_fault = lambda s: dataclasses.replace(s, gripper_closedness=measured)
    rig.robot.arm(POSITION)
    rig.tick()
    assert rig.device.writes[-1][3] == sent


def test_an_arm_slower_than_a_tenth_of_a_radian_a_second_is_at_rest():
    for speed, at_rest in ((0.1, True), (-0.101, False), (0.101, False)):
        rig = Rig(armed=False)
        rig.robot.connect()
        rig.device.read_fault = lambda s, v=speed: dataclasses.replace(s, dq_rad_s=np.full(6, v))
        if at_rest:
            rig.robot.arm(POSITION)
        else:
            with pytest.raises(HardwareError, match=r"moving at 0\.10 rad/s"):
                rig.robot.arm(POSITION)
