"""QP solvers on the barrier filter's own problems, and the cost of the filter and of a whole tick.

    python benchmarks/qp_solvers.py

Solvers that are not installed are left out: pip install quadprog piqp proxsuite clarabel
"""

import importlib
import time
from collections.abc import Callable

import numpy as np

from robo_rl.hardware import robots
from robo_rl.hardware.contracts import ArmCommand, ArmState, CommandMode, Device, Pose
from robo_rl.hardware.guard.barrier import BarrierConfig, BarrierFilter, Solver, solve_qp
from robo_rl.hardware.guard.chain import GuardConfig
from robo_rl.hardware.guard.controller import ArmController
from robo_rl.hardware.guard.shaping import Shaper

Problem = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
KIT = robots.get()
HOME = np.array(KIT.spec.home_rad)
CONFIG = BarrierConfig(keep_out=((0.45, 0.0, 0.15, 0.06),))
DT = 0.01


def collect(count: int) -> tuple[list[Problem], list[float]]:
    """Problems met while hostile velocities push the arm about, and the seconds per filter call."""
    problems: list[Problem] = []

    def record(*problem: np.ndarray) -> np.ndarray | None:
        problems.append(tuple(a.copy() for a in problem))  # type: ignore[arg-type]
        return solve_qp(*problem)

    shaper = Shaper(KIT.spec)
    barrier = BarrierFilter(KIT, shaper, CONFIG, solver=record)
    rng = np.random.default_rng(0)
    seconds = []
    while len(problems) < count:
        c, v, wanted = HOME + rng.uniform(-0.5, 0.5, 6), np.zeros(6), np.zeros(6)
        if barrier.min_height(c) <= 0.0:
            continue
        for tick in range(100):
            if tick % 10 == 0:
                wanted = rng.uniform(-1, 1, 6) * rng.choice([0.3, 1.0, np.pi])
            bounds = shaper.bounds(c, v, DT)
            nominal = np.clip(wanted, bounds.lower, bounds.upper)
            began = time.perf_counter()
            u = barrier.filter(c, v, nominal, DT, bounds).filtered_rad_s
            seconds.append(time.perf_counter() - began)
            c, v = c + (v + u) / 2 * DT, u
    return problems, seconds


def quadprog_solver() -> Solver:
    """Dual active set (Goldfarb and Idnani); the box as rows."""
    quadprog = importlib.import_module("quadprog")
    eye = np.eye(6)
    box = np.concatenate((eye, -eye))

    def solve(n: np.ndarray, rows: np.ndarray, least: np.ndarray, lo: np.ndarray, hi: np.ndarray):  # type: ignore[no-untyped-def]
        try:
            everything = np.concatenate((box, rows)).T
            return quadprog.solve_qp(eye, n, everything, np.concatenate((lo, -hi, least)))[0]
        except ValueError:
            return None

    return solve


def piqp_solver() -> Solver:
    """Proximal interior point, dense."""
    piqp = importlib.import_module("piqp")

    def solve(n: np.ndarray, rows: np.ndarray, least: np.ndarray, lo: np.ndarray, hi: np.ndarray):  # type: ignore[no-untyped-def]
        solver = piqp.DenseSolver()
        solver.settings.verbose = False
        solver.setup(np.eye(6), -n, None, None, rows, least, np.full(len(least), np.inf), lo, hi)
        return solver.result.x if solver.solve() == piqp.PIQP_SOLVED else None

    return solve


def proxsuite_solver() -> Solver:
    """Proximal augmented Lagrangian, dense, with box constraints."""
    proxqp = importlib.import_module("proxsuite").proxqp

    def solve(n: np.ndarray, rows: np.ndarray, least: np.ndarray, lo: np.ndarray, hi: np.ndarray):  # type: ignore[no-untyped-def]
        qp = proxqp.dense.QP(6, 0, len(least), True)
        free = np.full(len(least), 1e20)
        qp.settings.eps_abs = 1e-9
        qp.init(np.eye(6), -n, None, None, rows, least, free, lo, hi)
        qp.solve()
        solved = qp.results.info.status == proxqp.PROXQP_SOLVED
        return qp.results.x if solved else None

    return solve


def clarabel_solver() -> Solver:
    """Interior point on sparse cones; the box as rows."""
    clarabel = importlib.import_module("clarabel")
    sparse = importlib.import_module("scipy.sparse")
    eye = sparse.eye(6, format="csc")
    settings = clarabel.DefaultSettings()
    settings.verbose = False

    def solve(n: np.ndarray, rows: np.ndarray, least: np.ndarray, lo: np.ndarray, hi: np.ndarray):  # type: ignore[no-untyped-def]
        a = sparse.csc_matrix(np.concatenate((np.eye(6), -np.eye(6), -rows)))
        b = np.concatenate((hi, -lo, -least))
        cones = [clarabel.NonnegativeConeT(len(b))]
        solution = clarabel.DefaultSolver(eye, -n, a, b, cones, settings).solve()
        return np.array(solution.x) if solution.status == clarabel.SolverStatus.Solved else None

    return solve


def measure(name: str, solver: Solver, problems: list[Problem]) -> None:
    """Print times, and how far the answers are from the best known ones."""
    truth = [solve_qp(*problem) for problem in problems]
    seconds, worst, disagreed = [], 0.0, 0
    for problem, expected in zip(problems, truth, strict=True):
        began = time.perf_counter()
        u = solver(*problem)
        seconds.append(time.perf_counter() - began)
        if (u is None) != (expected is None):
            disagreed += 1
        elif u is not None and expected is not None:
            worst = max(worst, float(np.abs(u - expected).max()))
    print(
        f"{name:12} {spread(seconds)}   largest difference to daqp {worst:.1e} rad/s, "
        f"feasibility judged otherwise {disagreed} of {len(problems)}"
    )


def spread(seconds: list[float]) -> str:
    """Percentiles in microseconds."""
    p50, p99, p999 = np.percentile(np.array(seconds) * 1e6, [50, 99, 99.9])
    return f"p50 {p50:7.1f}  p99 {p99:7.1f}  p99.9 {p999:7.1f} us"


class StillDevice(Device):
    """Costs nothing: what is measured is the controller."""

    simulated = False

    def __init__(self) -> None:
        self.spec = KIT.spec
        self._time_s = 0.0
        self._q, self._still = HOME, np.zeros(6)
        self._tool = Pose(np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0]))

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def now_s(self) -> float:
        """Simulated."""
        return self._time_s

    def read(self) -> ArmState:
        """Where it was told to be."""
        t, still = self._time_s, self._still
        return ArmState(t, t, 0, self._q, still, still, self._tool, 0.0, 0.0)

    def write(self, q_rad: np.ndarray, dq_rad_s: np.ndarray, gripper_closedness: float) -> None:
        """Be there."""
        self._q = q_rad

    def pass_time(self, until_s: float) -> None:
        """At once."""
        self._time_s = until_s


def time_ticks(barrier: BarrierConfig | None) -> list[float]:
    """Seconds per tick while a policy streams nearby targets at 20 Hz."""
    device = StillDevice()
    robot = ArmController(device, GuardConfig(), barrier=barrier, kit=KIT)
    robot.connect()
    robot.arm(CommandMode.JOINT_POSITION)
    rng = np.random.default_rng(0)
    seconds = []
    for seq in range(1000):
        now, target = device.now_s(), HOME + rng.uniform(-0.05, 0.05, 6)
        robot.submit(ArmCommand(CommandMode.JOINT_POSITION, target, 0.0, seq, now, now + 0.09))
        for k in range(5):
            began = time.perf_counter()
            robot.tick(DT)
            seconds.append(time.perf_counter() - began)
            device.pass_time(now + (k + 1) * DT)
    return seconds


def main() -> None:
    """Print everything."""
    problems, seconds = collect(2000)
    rows = [len(problem[2]) for problem in problems]
    print(f"{len(problems)} problems of 6 joints, {min(rows)} to {max(rows)} rows and a box")
    solvers: dict[str, Callable[[], Solver]] = {
        "daqp": lambda: solve_qp,
        "quadprog": quadprog_solver,
        "piqp": piqp_solver,
        "proxsuite": proxsuite_solver,
        "clarabel": clarabel_solver,
    }
    for name, make in solvers.items():
        try:
            solver = make()
        except ImportError as error:
            print(f"{name:12} left out: {error}")
            continue
        measure(name, solver, problems)
    print(f"filter, hostile velocities   {spread(seconds)}")
    print(f"tick without barrier         {spread(time_ticks(None))}")
    print(f"tick, table and workspace    {spread(time_ticks(BarrierConfig()))}")
    print(f"tick, and a keep-out sphere  {spread(time_ticks(CONFIG))}")


if __name__ == "__main__":
    main()
