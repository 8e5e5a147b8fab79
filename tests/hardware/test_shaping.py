import dataclasses

import numpy as np
import pytest

from robo_rl.hardware.guard.shaping import Shaper, same
from robo_rl.hardware.robots.ur5e.spec import UR5E

ONE = dataclasses.replace(
    UR5E,
    joint_names=("j",),
    position_lower_rad=(-1.1,),
    position_upper_rad=(1.1,),
    soft_margin_rad=0.1,
    velocity_rad_s=(2.0,),
    acceleration_rad_s2=(10.0,),
    effort_nm=(1.0,),
    home_rad=(0.0,),
)


def step(shaper, c, v, wanted, dt):
    bounds = shaper.bounds(c, v, dt)
    v1 = np.clip(wanted, bounds.lower, bounds.upper)
    return c + (v + v1) / 2 * dt, v1


def go(shaper, c, v, target, dt, ticks):
    path = []
    for _ in range(ticks):
        c, v = step(shaper, c, v, shaper.toward(c, v, target, dt), dt)
        path.append(c[0])
    return c, v, np.array(path)


@pytest.mark.parametrize("dt", [0.002, 0.01, 0.02])
@pytest.mark.parametrize("target", [0.9, -0.5, 0.003, 1e-9])
def test_a_target_is_reached_at_rest_without_overshoot(dt, target):
    c, v, path = go(Shaper(ONE), np.zeros(1), np.zeros(1), np.array([target]), dt, int(3 / dt))
    np.testing.assert_allclose(c, target, atol=1e-12)
    np.testing.assert_allclose(v, 0.0, atol=1e-12)
    assert (np.abs(path) <= abs(target) + 1e-12).all()


def test_a_long_move_takes_the_time_of_a_trapezoid():
    """0.9 rad at 2 rad/s and 10 rad/s^2: 0.2 s up, 0.25 s across, 0.2 s down; two ticks more."""
    dt = 0.01
    _, _, path = go(Shaper(ONE), np.zeros(1), np.zeros(1), np.array([0.9]), dt, 100)
    arrived = int(np.argmax(path >= 0.9 - 1e-9)) + 1
    assert 0.65 <= arrived * dt <= 0.67 + 1e-9


def test_a_target_passed_too_fast_is_come_back_to():
    c, v, path = go(Shaper(ONE), np.zeros(1), np.array([2.0]), np.array([0.05]), 0.01, 300)
    assert path.max() > 0.15
    np.testing.assert_allclose([c[0], v[0]], [0.05, 0.0], atol=1e-12)


def test_hostile_velocities_never_leave_the_limits_whatever_the_ticks():
    """10,000 arms at once, as one arm of 10,000 joints: joints do not know of each other."""
    joints = 10_000
    many = dataclasses.replace(
        ONE,
        **{
            field.name: getattr(ONE, field.name) * joints
            for field in dataclasses.fields(ONE)
            if isinstance(getattr(ONE, field.name), tuple) and field.name != "modes"
        },
    )
    shaper = Shaper(many, max_tick_s=0.02)
    rng = np.random.default_rng(0)
    c, v = rng.uniform(-1, 1, joints), np.zeros(joints)
    wanted = np.zeros(joints)
    for _ in range(400):
        change = rng.random(joints) < 0.1
        wanted[change] = rng.choice([-1e9, -2.0, 0.0, 2.0, 1e9], joints)[change]
        dt = float(rng.choice([1e-4, 0.002, 0.0077, 0.02]))
        c1, v1 = step(shaper, c, v, wanted, dt)
        assert np.abs(c1).max() <= 1.0 + 1e-12
        assert np.abs(v1).max() <= 2.0
        assert np.abs(v1 - v).max() <= 10.0 * dt + 1e-12
        c, v = c1, v1


def test_the_soft_limit_is_reached_and_held():
    c, v, _ = go(Shaper(ONE), np.zeros(1), np.zeros(1), np.array([5.0]), 0.01, 400)
    np.testing.assert_allclose(c, 1.0, atol=1e-9)
    np.testing.assert_allclose(v, 0.0, atol=1e-7)


def test_from_outside_the_soft_limits_it_creeps_back_and_goes_no_further():
    shaper = Shaper(ONE, creep_rad_s=0.05)
    c, v = np.array([1.05]), np.zeros(1)
    c_out, _, path = go(shaper, c, v, np.array([5.0]), 0.01, 50)
    assert path.max() <= 1.05 + 1e-12
    for _ in range(50):
        c, v = step(shaper, c, v, shaper.toward(c, v, np.zeros(1), 0.01), 0.01)
        assert abs(v[0]) <= 0.05 + 1e-12
    np.testing.assert_allclose(c[0], 1.05 - 0.05 * 0.5, atol=1e-3)
    assert c_out[0] <= 1.05


def test_braking_keeps_the_direction_and_stops_at_the_limit_of_the_worst_joint():
    """3 rad/s at 40 rad/s^2 takes 75 ms; the other joint slows in proportion."""
    shaper = Shaper(UR5E)
    c, v = np.zeros(6), np.array([3.0, -1.0, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(shaper.stop_time_s(v), 0.075)
    for k in range(1, 9):
        v1 = shaper.brake(c, v, 0.01)
        c, v = c + (v + v1) / 2 * 0.01, v1
        np.testing.assert_allclose(v[1] * 3.0, -v[0], atol=1e-12)
        np.testing.assert_allclose(v[0], max(0.0, 3.0 - 0.4 * k), atol=1e-12)


@pytest.mark.parametrize("ticks", [(0.02,), (0.001,), (0.003, 0.02, 0.011)])
def test_braking_ends_within_the_way_that_is_reserved(ticks):
    shaper = Shaper(UR5E, max_tick_s=0.02)
    for speed in (0.01, 0.3, 0.4, 1.0, 3.0):
        c, v = np.zeros(6), np.full(6, speed)
        reserved = speed * shaper.stop_way_s(v)
        for k in range(200):
            v1 = shaper.brake(c, v, ticks[k % len(ticks)])
            c, v = c + (v + v1) / 2 * ticks[k % len(ticks)], v1
        assert not v.any()
        assert c.max() <= reserved + 1e-12


@pytest.mark.parametrize(
    "wrong",
    [{"velocity_scale": 0.0}, {"velocity_scale": 1.5}, {"acceleration_rad_s2": 0.0}],
)
def test_wrong_limits_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Shaper(UR5E, **wrong)


def test_the_scale_and_the_acceleration_reach_the_bounds():
    shaper = Shaper(UR5E, velocity_scale=0.5, acceleration_rad_s2=4.0)
    bounds = shaper.bounds(np.zeros(6), np.zeros(6), 0.01)
    np.testing.assert_allclose(bounds.upper, 0.04)
    fast = np.full(6, np.pi / 2)
    np.testing.assert_allclose(shaper.bounds(np.zeros(6), fast, 0.01).upper, np.pi / 2)


def test_the_way_of_a_stop_by_hand():
    """Within half a tick: half a tick's way. Longer: half its time, and what a last tick adds."""
    shaper = Shaper(UR5E, max_tick_s=0.02)
    acceleration = np.asarray(UR5E.acceleration_rad_s2)
    np.testing.assert_allclose(shaper.stop_way_s(np.zeros(6)), 0.01)
    np.testing.assert_allclose(shaper.stop_way_s(0.009 * acceleration), 0.01)
    np.testing.assert_allclose(shaper.stop_way_s(0.04 * acceleration), 0.02 + 0.02**2 / (8 * 0.04))


def test_a_limit_is_far_when_a_stop_from_full_speed_still_ends_before_it():
    """v^2 / 2a + a h^2 + v h of the fastest and the weakest joint, at 2 rad/s and 10 rad/s^2."""
    assert Shaper(ONE, max_tick_s=0.02).far == pytest.approx(0.2 + 0.004 + 0.04)
    assert Shaper(ONE, max_tick_s=0.1).far == pytest.approx(0.2 + 0.1 + 0.2)


@pytest.mark.parametrize("dt", [0.005, 0.02])
@pytest.mark.parametrize("way", [1e-5, 5e-4, 9e-4, 0.002, 0.02, 0.1])
def test_the_fastest_approach_to_a_limit_uses_all_of_the_way_that_is_left(way, dt):
    """v1 dt / 2 + S(v1) = way, with S(v) = v^2 / 2a + a h^2 / 8, or v h / 2 up to a h / 2."""
    a, h = 10.0, 0.02
    shaper = Shaper(ONE, max_tick_s=h)
    for side in (1, -1):
        bounds = shaper.bounds(np.array([side * (1.0 - way)]), np.zeros(1), dt)
        speed = shaper._stoppable(np.array([way]), dt)[0]
        stop = speed * h / 2 if speed <= a * h / 2 else speed**2 / (2 * a) + a * h**2 / 8
        assert speed * dt / 2 + stop == pytest.approx(way, rel=1e-9)
        outward = bounds.upper[0] if side == 1 else -bounds.lower[0]
        assert outward == pytest.approx(min(speed, a * dt))
        assert (bounds.lower[0] if side == 1 else -bounds.upper[0]) == pytest.approx(-a * dt)
        assert bounds.room_rad == pytest.approx(way)


def test_equal_numbers_are_the_same_bit_for_bit():
    assert same(np.array([0.1, 2.0]), np.array([0.1, 2.0]))
    assert not same(np.array([0.1, 2.0]), np.array([0.1, np.nextafter(2.0, 3.0)]))


def test_a_joint_at_rest_brakes_by_staying_where_it_is():
    v1 = Shaper(ONE).brake(np.array([0.3]), np.zeros(1), 0.01)
    np.testing.assert_array_equal(v1, [0.0])


def test_wrong_ticks_are_refused_and_the_ends_of_what_is_allowed_are_not():
    for wrong in (0.0, -0.01, np.nan):
        with pytest.raises(ValueError, match="max_tick_s must be > 0"):
            Shaper(UR5E, max_tick_s=wrong)
    np.testing.assert_array_equal(Shaper(UR5E, velocity_scale=1.0).velocity, UR5E.velocity_rad_s)
    assert Shaper(UR5E, acceleration_rad_s2=1e-3).acceleration.max() == 1e-3


@pytest.mark.parametrize("side", [1, -1])
def test_outside_a_soft_limit_it_may_rest_or_creep_back_and_nothing_else(side):
    """At rest 0.05 rad outside, 10 rad/s^2 and ticks of 0.02 s leave 0.2 rad/s of either sign."""
    bounds = Shaper(ONE, creep_rad_s=0.05).bounds(np.array([side * 1.05]), np.zeros(1), 0.02)
    outward, inward = (bounds.upper, bounds.lower) if side == 1 else (bounds.lower, bounds.upper)
    np.testing.assert_array_equal(outward, [0.0])
    np.testing.assert_allclose(inward, [-side * 0.05])
    assert bounds.room_rad == pytest.approx(-0.05)
