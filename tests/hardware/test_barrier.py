import collections
import dataclasses

import numpy as np
import pytest

from robo_rl.hardware.contracts import Verdict
from robo_rl.hardware.guard.barrier import BarrierConfig, BarrierFilter, _Task, solve_qp
from robo_rl.hardware.guard.shaping import Bounds, Shaper
from robo_rl.hardware.robots.ur5e.kit import UR5E_KIT
from robo_rl.hardware.robots.ur5e.spec import UR5E

HOME = np.array(UR5E.home_rad)
STILL = np.zeros(6)
DT = 0.01
KEEP_OUT = ((0.45, 0.0, 0.15, 0.06), (0.30, 0.35, 0.30, 0.10))


@pytest.fixture(scope="module")
def model():
    return UR5E_KIT


def make(kit, config=None, spec=UR5E, **options):
    shaper = Shaper(spec)
    return shaper, BarrierFilter(
        dataclasses.replace(kit, spec=spec), shaper, config or BarrierConfig(), **options
    )


def run(shaper, barrier, c, v, wanted, dt):
    """One filtered tick, after the shaper's clip as in the chain."""
    bounds = shaper.bounds(c, v, dt)
    nominal = np.clip(wanted, bounds.lower, bounds.upper)
    return barrier.filter(c, v, nominal, dt, bounds), bounds


def lowest(barrier, q):
    return barrier.min_height(q)


def test_home_and_ogbenchs_grasp_height_are_allowed(model):
    """At the lowest tool target of OGBench, 0.02 m, closed fingers end 2 mm above the table."""
    _, barrier = make(model)
    assert lowest(barrier, HOME) > 0.1
    h = dict(zip(barrier.names, barrier.heights(HOME), strict=True))
    tips = min(value for name, value in h.items() if name.startswith("table/finger_corner"))
    tool_z = h["workspace/z_lower"]
    np.testing.assert_allclose(tool_z - tips, 0.018, atol=1e-6)


def test_gradients_are_the_derivatives_of_the_heights(model):
    _, barrier = make(model, BarrierConfig(keep_out=KEEP_OUT))
    q = HOME + np.random.default_rng(0).uniform(-0.5, 0.5, 6)
    eps = 1e-6
    numeric = [
        (barrier.heights(q + eps * e) - barrier.heights(q - eps * e)) / (2 * eps) for e in np.eye(6)
    ]
    barrier.heights(q)
    np.testing.assert_allclose(barrier.gradients(), np.transpose(numeric), atol=1e-8)


def test_heights_by_hand_at_home(model):
    """The tool is at (0.492, 0.134, 0.3322); a held cube's sphere around it has 0.035 m."""
    config = BarrierConfig(keep_out=((0.492, 0.134, 0.6322, 0.05),), keep_out_margin_m=0.01)
    _, barrier = make(model, config)
    h = dict(zip(barrier.names, barrier.heights(HOME), strict=True))
    np.testing.assert_allclose(h["workspace/x_lower"], 0.492 - 0.15, atol=1e-4)
    np.testing.assert_allclose(h["workspace/y_upper"], 0.45 - 0.134, atol=1e-4)
    np.testing.assert_allclose(h["keep_out_0/tool"], 0.3 - 0.05 - 0.035 - 0.01, atol=1e-4)


def test_one_affine_constraint_is_a_projection():
    """min |u - n|^2, a u >= b: u = n + a (b - a n) / |a|^2."""
    rng = np.random.default_rng(0)
    box = np.full(6, 100.0)
    for _ in range(50):
        nominal, a = rng.normal(size=(2, 6))
        b = float(a @ nominal + abs(rng.normal()))
        expected = nominal + a * (b - a @ nominal) / (a @ a)
        u = solve_qp(nominal, a[None], np.array([b]), -box, box)
        np.testing.assert_allclose(u, expected, atol=1e-7)


def test_an_empty_set_is_infeasible():
    one = np.ones((1, 6))
    assert solve_qp(STILL, one, np.array([7.0]), -np.ones(6), np.ones(6)) is None


def test_what_is_safe_comes_back_unchanged(model):
    shaper, barrier = make(model, BarrierConfig(keep_out=KEEP_OUT))
    for wanted in np.random.default_rng(0).uniform(-0.3, 0.3, (50, 6)):
        report, _ = run(shaper, barrier, HOME, STILL, wanted, DT)
        assert report.verdict is Verdict.PASS
        assert report.active == ()
        np.testing.assert_array_equal(report.filtered_rad_s, report.nominal_rad_s)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("table/", BarrierConfig(workspace_lower_m=None, workspace_upper_m=None)),
        ("workspace/y_upper", BarrierConfig(table_z_m=None)),
        ("workspace/z_upper", BarrierConfig()),
        ("keep_out_0/", BarrierConfig(keep_out=((0.492, -0.2, 0.33, 0.08),))),
    ],
)
def test_an_approach_ends_at_the_band_and_at_rest(model, kind, config):
    shaper, barrier = make(model, config)
    rows = [k for k, name in enumerate(barrier.names) if name.startswith(kind)]

    c, v = HOME, STILL
    for _ in range(400):
        nearest = rows[int(np.argmin(barrier.heights(c)[rows]))]
        g = barrier.gradients()[nearest]
        report, _ = run(shaper, barrier, c, v, -g / np.abs(g).max(), DT)
        u = report.filtered_rad_s
        c, v = c + (v + u) / 2 * DT, u
        assert lowest(barrier, c) >= 0.0
    h = barrier.heights(c)[rows].min()
    assert 0.0 <= h <= 2.5 * barrier.config.band_m
    assert barrier.heights(c).min() >= 0.0


ALL_KINDS = BarrierConfig(keep_out=KEEP_OUT)
# A shoulder that can hardly turn, so that the joint limits take part.
TIGHT = dataclasses.replace(
    UR5E,
    position_lower_rad=tuple(HOME - 0.9),
    position_upper_rad=tuple(HOME + 0.9),
)


@pytest.mark.parametrize("seed", range(4))
def test_from_safe_states_hostile_velocities_never_break_a_barrier(model, seed):
    """Heights are looked at inside the ticks too; ticks vary up to the longest allowed."""
    shaper, barrier = make(model, ALL_KINDS, TIGHT)
    rng = np.random.default_rng(seed)
    active: collections.Counter[str] = collections.Counter()
    verdicts: collections.Counter[Verdict] = collections.Counter()
    rows = collections.defaultdict(list)
    for k, name in enumerate(barrier.names):
        rows[name.split("/")[0]].append(k)
    for kind in 3 * list(rows):
        c = HOME + rng.uniform(-0.8, 0.8, 6)
        while lowest(barrier, c) <= 0.0:
            c = HOME + rng.uniform(-0.8, 0.8, 6)
        v, wanted = STILL, STILL
        for tick in range(100):
            if tick % 8 == 0:
                size = rng.choice([0.3, 1.0, np.pi])
                wanted = size * rng.choice([rng.uniform(-1, 1, 6), rng.choice([-1.0, 1.0], 6)])
            if tick % 3 == 0 and rng.random() < 0.5:  # straight at one kind of constraint
                nearest = min(rows[kind], key=barrier.heights(c).__getitem__)
                wanted = -np.pi * np.sign(barrier.gradients()[nearest])
            dt = float(rng.choice([0.002, 0.004, 0.01, 0.02]))
            report, bounds = run(shaper, barrier, c, v, wanted, dt)
            u = report.filtered_rad_s
            verdicts[report.verdict] += 1
            active.update({name.split("/")[0] for name in report.active})
            assert report.verdict is not Verdict.ERROR, report.status
            assert (u >= bounds.lower - 1e-12).all()
            assert (u <= bounds.upper + 1e-12).all()
            for part in (0.5, 1.0):
                inside = c + v * (part * dt) + (u - v) * (part * part * dt / 2)
                assert lowest(barrier, inside) >= -1e-9
            c, v = c + (v + u) / 2 * dt, u
            assert (np.abs(c - HOME) <= 0.85 + 1e-9).all()
    assert verdicts[Verdict.MODIFIED] > 100
    assert verdicts[Verdict.INFEASIBLE] < 0.1 * verdicts.total()
    assert {"table", "workspace", "keep_out_0", "joint"} <= set(active)


def test_braking_is_safe_from_every_state_that_the_filter_led_to(model):
    """What `infeasible` and `error` fall back to: a full stop, in ticks of other lengths."""
    shaper, barrier = make(model, ALL_KINDS)
    rng = np.random.default_rng(5)
    c, v = HOME, STILL
    for _ in range(150):
        report, _ = run(shaper, barrier, c, v, rng.choice([-np.pi, np.pi], 6), DT)
        u = report.filtered_rad_s
        c, v = c + (v + u) / 2 * DT, u
        c_stop, v_stop = c, v
        while v_stop.any():
            dt = float(rng.choice([0.002, 0.013, 0.02]))
            v1 = shaper.brake(c_stop, v_stop, dt)
            c_stop, v_stop = c_stop + (v_stop + v1) / 2 * dt, v1
            assert lowest(barrier, c_stop) >= -1e-9


def sunk(model):
    """At rest, with the tips 3 cm below the table."""
    shaper, barrier = make(model)
    c, v = HOME, STILL
    for _ in range(300):
        tips = [k for k, name in enumerate(barrier.names) if "finger" in name]
        nearest = tips[int(np.argmin(barrier.heights(c)[tips]))]
        wanted = -np.sign(barrier.gradients()[nearest])
        u = run(shaper, barrier, c, v, wanted, DT)[0].filtered_rad_s
        c, v = c + (v + u) / 2 * DT, u
    return c, *make(model, BarrierConfig(table_z_m=lowest(barrier, c) + 0.03))


@pytest.mark.parametrize("deeper", [False, True])
def test_from_outside_it_comes_back_whatever_is_asked(model, deeper):
    """0.03 m at 0.02 m/s: 1.5 s and the approach to the band."""
    c, shaper, barrier = sunk(model)
    v, before = STILL, lowest(barrier, c)
    np.testing.assert_allclose(before, -0.03, atol=1e-3)
    for _ in range(400):
        nearest = int(np.argmin(barrier.heights(c)))
        wanted = -np.sign(barrier.gradients()[nearest]) if deeper else STILL
        u = run(shaper, barrier, c, v, wanted, DT)[0].filtered_rad_s
        c, v = c + (v + u) / 2 * DT, u
        after = lowest(barrier, c)
        assert after >= min(before, 0.0) - 1e-9
        before = after
    assert 0.0 <= before <= 0.003


def near_table(model, **options):
    """A state that needs the solver: moving down, just above the table."""
    tips = 0.3322 - 0.018
    shaper, barrier = make(
        model, BarrierConfig(table_z_m=tips - 0.004, **options.pop("config", {})), **options
    )
    barrier.heights(HOME)
    k = barrier.names.index("table/finger_corner_2")
    return shaper, barrier, -0.3 * np.sign(barrier.gradients()[k])


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (None, Verdict.INFEASIBLE),
        (np.full(6, np.nan), Verdict.INFEASIBLE),
        (RuntimeError("solver broke"), Verdict.ERROR),
    ],
)
def test_a_solver_that_fails_means_braking(model, answer, verdict):
    def solver(*arguments):
        if isinstance(answer, Exception):
            raise answer
        return answer

    shaper, barrier, wanted = near_table(model, solver=solver)
    report, _ = run(shaper, barrier, HOME, STILL, wanted, DT)
    assert report.verdict is verdict
    np.testing.assert_array_equal(report.filtered_rad_s, 0.0)
    if verdict is Verdict.ERROR:
        assert "solver broke" in report.status


def test_a_wrong_answer_of_the_solver_is_not_sent(model):
    shaper, barrier, wanted = near_table(model, solver=lambda nominal, *rest: nominal * 10)
    report, _ = run(shaper, barrier, HOME, STILL, wanted, DT)
    assert report.verdict is Verdict.INFEASIBLE
    np.testing.assert_array_equal(report.filtered_rad_s, 0.0)


def test_a_late_answer_means_braking(model):
    shaper, barrier, wanted = near_table(model, config={"time_budget_s": 1e-9})
    report, _ = run(shaper, barrier, HOME, STILL, wanted, DT)
    assert report.verdict is Verdict.ERROR
    assert report.status.startswith("late")
    np.testing.assert_array_equal(report.filtered_rad_s, 0.0)


def test_a_state_that_is_not_finite_means_braking(model):
    shaper, barrier = make(model)
    bounds = shaper.bounds(HOME, STILL, DT)
    for c in (np.full(6, np.nan), np.full(6, np.inf)):
        assert barrier.filter(c, STILL, STILL, DT, bounds).verdict is Verdict.ERROR


def test_alpha_is_lowered_to_what_the_acceleration_allows(model):
    """40 rad/s^2 over pi rad/s is 12.7 1/s."""
    assert make(model, BarrierConfig(alpha=100.0))[1].alpha == pytest.approx(40 / np.pi)
    assert make(model, BarrierConfig(alpha=3.0))[1].alpha == 3.0


def test_every_length_in_the_config_reaches_the_heights(model):
    base = dict(zip(*_named(model, BarrierConfig(keep_out=KEEP_OUT)), strict=True))

    def change(**fields):
        config = BarrierConfig(**{"keep_out": KEEP_OUT, **fields})
        return dict(zip(*_named(model, config), strict=True))

    raised = change(table_z_m=0.1)
    np.testing.assert_allclose(base["table/forearm_0"] - raised["table/forearm_0"], 0.1)
    closer = change(keep_out_margin_m=BarrierConfig.keep_out_margin_m + 0.03)
    np.testing.assert_allclose(base["keep_out_0/tool"] - closer["keep_out_0/tool"], 0.03)
    bigger = change(held_object_m=0.045)
    np.testing.assert_allclose(base["keep_out_0/tool"] - bigger["keep_out_0/tool"], 0.01)
    moved = change(workspace_lower_m=(0.1, -0.45, 0.0))
    np.testing.assert_allclose(moved["workspace/x_lower"] - base["workspace/x_lower"], 0.05)
    assert not any(name.startswith("table") for name in change(table_z_m=None))
    assert not any(name.endswith("/tool") for name in change(held_object_m=0.0))
    nothing = BarrierConfig(None, None, None)
    assert _named(model, nothing)[0] == ()


def _named(model, config):
    _, barrier = make(model, config)
    return barrier.names, barrier.heights(HOME)


def test_without_constraints_only_the_joint_limits_are_left(model):
    shaper, barrier = make(model, BarrierConfig(None, None, None))
    report, _ = run(shaper, barrier, HOME, STILL, np.ones(6), DT)
    assert report.verdict is Verdict.PASS
    np.testing.assert_allclose(report.min_barrier, np.pi - 0.05 - np.pi / 2)  # the elbow


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0.0},
        {"band_m": -1.0},
        {"recovery_m_s": float("nan")},
        {"keep_out_margin_m": -0.1},
        {"held_object_m": -0.1},
        {"time_budget_s": 0.0},
        {"table_z_m": float("nan")},
        {"workspace_lower_m": (1.0, 0.0, 0.0)},
        {"keep_out": ((0.0, 0.0, 0.0, 0.0),)},
    ],
)
def test_a_wrong_config_is_refused(wrong):
    name = next(iter(wrong)).removesuffix("_lower_m")
    with pytest.raises(ValueError, match=name):
        BarrierConfig(**wrong)


def task_of(barrier, h=(), g=(), *, c=HOME, v=STILL, dt=DT, room=100.0):
    """A call of the filter with heights and gradients of our own; far from every limit."""
    box = Bounds(np.full(6, -10.0), np.full(6, 10.0), room)
    return _Task(c, v, dt, box, np.asarray(h), np.asarray(g), STILL, 0.0)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_tick_and_the_stop_after_it_must_end_before_a_joints_limit(model, sign):
    """From 0.4 to 1 rad/s within 0.01 s: 0.002 + 0.005 rad. Then a stop: 1 rad/s times 12.5 ms,
    half of the braking time, and 2 ms of what the last tick may add, 0.02^2 / (8 / 40)."""
    shaper, barrier = make(model, BarrierConfig(None, None, None))
    one = np.eye(6)[0] * sign
    way = 0.002 + 0.005 + 0.0125 + 0.002
    limit = shaper.upper[0] if sign == 1 else -shaper.lower[0]
    for inside, certified in ((1e-6, True), (-1e-6, False)):
        c = HOME * (1 - np.eye(6)[0]) + one * (limit - way - inside)
        task = task_of(barrier, c=c, v=0.4 * one, room=0.0)
        assert barrier._certified(task, 1.0 * one) is certified
        assert barrier._certified(task._replace(bounds=task.bounds._replace(room_rad=9.0)), one)


def test_the_corners_of_a_stopping_path_must_all_stay_above_the_boundary(model):
    """One constraint that falls by 1 m per rad of the first joint, less what curvature may take:
    half of the farthest reach times the square of the angle."""
    _, barrier = make(model, BarrierConfig(None, (0.15, -0.45, 0.0), (0.7, 0.45, 0.6)))
    rows = len(barrier.names)
    reach = barrier._kinematics.reach_m.max(axis=0)[0]
    one = np.eye(6)[0]
    g = np.zeros((rows, 6))
    g[0, 0] = -1.0
    start, end = 0.002, 0.002 + 0.005  # of 0.4 rad/s, then up to 1 rad/s, within 0.01 s
    stop = end + 0.0125 + 0.002
    back = 0.002 - 0.005  # to -1 rad/s: the farthest corner is that of the old speed
    for u, corner in ((one, stop), (-one, start)):
        assert back < start
        least = corner + 0.5 * reach * corner**2
        for more, certified in ((1e-7, True), (-1e-7, False)):
            h = np.full(rows, 5.0)
            h[0] = least + more
            task = task_of(barrier, h, g, v=0.4 * one)
            assert barrier._certified(task, u) is certified


def test_with_rates_a_velocity_must_also_give_each_of_them(model):
    _, barrier = make(model, BarrierConfig(None, (0.15, -0.45, 0.0), (0.7, 0.45, 0.6)))
    rows = len(barrier.names)
    g = np.zeros((rows, 6))
    g[2, 1] = 0.5
    u = 0.2 * np.eye(6)[1]
    task = task_of(barrier, np.full(rows, 5.0), g)
    asked = np.full(rows, -1.0)
    asked[2] = 0.1 - 1e-7
    assert barrier._certified(task, u, asked)
    asked[2] = 0.1 + 1e-7
    assert not barrier._certified(task, u, asked)
    assert barrier._certified(task, u)


def test_the_box_of_a_joint_narrows_with_its_distance_to_a_limit(model):
    """At alpha 10 a joint 0.02 rad before its limit may approach it at 0.2 rad/s."""
    shaper, barrier = make(model, BarrierConfig(None, None, None))
    wide = Bounds(np.full(6, -3.0), np.full(6, 3.0), 0.02)
    c = HOME.copy()
    c[0], c[1] = shaper.upper[0] - 0.02, shaper.lower[1] + 0.03
    narrow = barrier._narrow(c, wide)
    assert narrow.upper[0] == pytest.approx(0.2)
    assert narrow.lower[1] == pytest.approx(-0.3)
    np.testing.assert_array_equal(narrow.lower[[0, 2, 3, 4, 5]], -3.0)
    np.testing.assert_array_equal(narrow.upper[1:], 3.0)
    # Outside it may not go further, and where only braking is left, that wins.
    c[0] = shaper.upper[0] + 0.01
    assert barrier._narrow(c, wide).upper[0] == 0.0
    fast = wide._replace(lower=np.full(6, 1.0))
    assert barrier._narrow(c, fast).upper[0] == 1.0
    far = wide._replace(room_rad=np.pi / 10 + 1e-9)
    assert barrier._narrow(c, far) is far


def test_what_a_violated_constraint_asks_for_is_cut_to_half_of_what_the_box_allows(model):
    """The best rate of g = (1, -2) in a box of [-0.1, 0.3] is 0.3 + 0.2."""
    _, barrier = make(model, BarrierConfig())
    g = np.zeros((3, 6))
    g[:, 0], g[:, 1] = 1.0, -2.0
    box = Bounds(np.full(6, -0.1), np.full(6, 0.3), 1.0)
    task = task_of(barrier, [-0.01, 0.0005, 0.5], g)._replace(bounds=box)
    np.testing.assert_allclose(
        barrier._attainable(np.array([0.02, 0.4, 0.4]), task), [0.02, 0.25, 0.4]
    )
    # Where even the best falls, it need not rise.
    sinking = task._replace(bounds=Bounds(np.full(6, 0.1), np.full(6, 0.3), 1.0))
    steep = sinking._replace(g=g * [1, 5, 1, 1, 1, 1])
    best = 0.3 - 10 * 0.1
    np.testing.assert_allclose(
        barrier._attainable(np.full(3, 0.02), steep), [1.5 * best, 1.5 * best, 0.02]
    )


def test_only_constraints_that_can_bind_in_the_box_reach_the_solver(model):
    """g u is at least -0.3 where g = (3, 0), and -0.1 - 0.6 where g = (1, -2), in [-0.1, 0.3]."""
    asked = []

    def solver(*arguments):
        asked.append(arguments)

    _, barrier = make(model, solver=solver)
    g = np.zeros((2, 6))
    g[0, 0], g[1, :2] = 3.0, (1.0, -2.0)
    box = Bounds(np.full(6, -0.1), np.full(6, 0.3), 1.0)
    task = task_of(barrier, [1.0, 1.0], g)._replace(bounds=box)
    wish = np.full(6, 0.2)
    assert barrier._solve(task, wish, np.array([-0.31, -0.71])) is wish
    assert not asked
    barrier._solve(task, wish, np.array([-0.31, -0.69]))
    barrier._solve(task, wish, np.array([-0.29, -0.71]))
    barrier._solve(task, wish, np.array([-0.29, -0.69]))
    assert [least.tolist() for _, _, least, _, _ in asked] == [[-0.69], [-0.29], [-0.29, -0.69]]
    np.testing.assert_array_equal(asked[0][1], g[1:])
    np.testing.assert_array_equal(asked[2][1], g)
    np.testing.assert_array_equal(asked[2][3], box.lower)
    np.testing.assert_array_equal(asked[2][4], box.upper)


def test_what_leaves_a_velocity_no_way_on_is_named(model):
    _, barrier = make(model, BarrierConfig(None, (0.15, -0.45, 0.0), (0.7, 0.45, 0.6)))
    g = np.zeros((6, 6))
    g[:, 0] = 1.0
    rows = np.array([0.2 - 2e-6, 0.2 - 5e-7, 0.2, 0.3, 0.1, -1.0])
    task = task_of(barrier, np.ones(6), g)
    assert barrier._tight(task, 0.2 * np.eye(6)[0], rows) == barrier.names[1:4]


def test_a_joint_that_its_own_limit_slows_is_named(model):
    """0.02 rad before the limit, at alpha 10: 0.2 rad/s of the 0.3 rad/s that are asked for."""
    shaper, barrier = make(model, BarrierConfig(None, None, None))
    c, v = HOME.copy(), 0.2 * np.eye(6)[3]
    c[3] = shaper.upper[3] - 0.02
    report, _ = run(shaper, barrier, c, v, 0.3 * np.eye(6)[3], DT)
    assert report.verdict is Verdict.MODIFIED
    assert report.active == (f"joint/{UR5E.joint_names[3]}",)
    assert (report.status, report.slack) == ("as asked", 0.0)
    np.testing.assert_allclose(report.filtered_rad_s, 0.2 * np.eye(6)[3])
    assert report.min_barrier == pytest.approx(0.02)


def test_slack_is_what_a_violated_constraint_lacks_and_zero_otherwise(model):
    """A centimetre deep, from rest: what 40 rad/s^2 give in half a millisecond is less than the
    20 mm/s that are asked for, what they give in 10 ms is more."""
    shaper, barrier = make(model)
    assert run(shaper, barrier, HOME, STILL, STILL, DT)[0].slack == 0.0
    for answer in (None, lambda *a: 1 / 0):
        solver = answer or (lambda *a: None)
        near_shaper, near, wanted = near_table(model, solver=solver)
        assert run(near_shaper, near, HOME, STILL, wanted, DT)[0].slack == 0.0
    near_shaper, near, wanted = near_table(model)
    report, _ = run(near_shaper, near, HOME, STILL, wanted, DT)
    assert (report.verdict, report.slack) == (Verdict.MODIFIED, pytest.approx(0.0, abs=1e-9))
    table_z_m = lowest(make(model, BarrierConfig(0.0, None, None))[1], HOME) + 0.01
    shaper, deep = make(model, BarrierConfig(table_z_m, None, None))
    for dt, lacks in ((0.0005, True), (0.01, False)):
        report, _ = run(shaper, deep, HOME, STILL, STILL, dt)
        h, g = deep.heights(HOME), deep.gradients()
        rate = g @ report.filtered_rad_s
        asked = np.minimum(deep.alpha * (deep.config.band_m - h), deep.config.recovery_m_s)
        short = np.where(h < deep.config.band_m, asked - rate, 0.0)
        assert report.verdict is Verdict.MODIFIED
        assert report.slack == pytest.approx(max(0.0, short.max()), abs=1e-9)
        assert np.abs(report.filtered_rad_s).max() <= 40.0 * dt + 1e-12
        assert (report.slack > 0.005) is lacks


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"time_budget_s": -1.0}, "time_budget_s"),
        ({"time_budget_s": float("nan")}, "time_budget_s"),
        ({"alpha": float("inf")}, "alpha"),
        ({"alpha": -1.0}, "alpha"),
        ({"keep_out_margin_m": float("inf")}, "keep_out_margin_m"),
        ({"held_object_m": float("nan")}, "held_object_m"),
        ({"table_z_m": float("-inf")}, "table_z_m"),
        ({"workspace_lower_m": None}, "workspace"),
        ({"workspace_upper_m": None}, "workspace"),
        ({"workspace_lower_m": (0.7, -0.45, 0.0)}, "workspace"),
        ({"keep_out": ((0.0, 0.0, 0.1),)}, "keep_out"),
        ({"keep_out": ((0.0, 0.0, 0.0, 0.1, 0.1),)}, "keep_out"),
        ({"keep_out": ((0.0, float("nan"), 0.0, 0.1),)}, "keep_out"),
        ({"keep_out": ((0.0, 0.0, 0.0, 0.1), (0.0, 0.0, 0.0, -0.1))}, "keep_out"),
    ],
)
def test_no_number_of_a_config_is_senseless(wrong, name):
    with pytest.raises(ValueError, match=name):
        BarrierConfig(**wrong)


def test_the_smallest_numbers_that_make_sense_are_allowed():
    config = BarrierConfig(keep_out_margin_m=0.0, held_object_m=0.0, alpha=1e-3, band_m=1e-6)
    assert (config.keep_out_margin_m, config.held_object_m) == (0.0, 0.0)
    assert BarrierConfig(time_budget_s=1e-3, keep_out=((0.0, 0.0, 0.0, 1e-3),)).keep_out
