"""A dataset of your own: arrays from any log become a Minari dataset, checked and learned from.

    python examples/own_dataset.py [FOLDER]

An `Episode` is five arrays. Observations have one row more than actions: the state that the last
step led to belongs to the episode. `terminations` say that the task ended, so that no value lies
beyond; `truncations` that only the recording ended, as when time is up. They are never the same
thing, and a learner that takes one for the other learns wrong values.

Actions are stored in your own units; the bounds of their space say which, and the learner scales
them to [-1, 1] and back. No environment is named here: the run trains, and its policy acts, but
to `evaluate` it you would name one (`env=`, see own_environment.py).
"""

import os
import pathlib
import sys
import tempfile

import gymnasium
import numpy as np

import robo_rl
from robo_rl.data.provenance import Provenance, RewardLabel

DATASET = "cart/log-v0"
LIMIT_M_S = 0.5  # the fastest that the cart was ever told to go
PERIOD_S = 0.1


def drive(rng: np.random.Generator, steps: int = 60) -> dict[str, np.ndarray]:
    """What a logger wrote of one drive: a cart that is steered to a mark, with a shaky hand."""
    position, mark = rng.uniform(-1.0, 1.0, 2)
    rows: dict[str, list[float]] = {"position_m": [position], "mark_m": [mark], "speed_m_s": []}
    for _ in range(steps):
        speed = np.clip(2.0 * (mark - position) + 0.1 * rng.normal(), -LIMIT_M_S, LIMIT_M_S)
        position += speed * PERIOD_S
        rows["position_m"].append(position)
        rows["mark_m"].append(mark)
        rows["speed_m_s"].append(speed)
        if abs(mark - position) < 0.02:
            break
    return {name: np.array(values) for name, values in rows.items()}


def episode(log: dict[str, np.ndarray]) -> robo_rl.Episode:
    """One drive as an episode: -1 a step until the cart stands at the mark, which ends it."""
    observations = np.stack([log["position_m"], log["mark_m"]], axis=1)
    there = np.abs(observations[1:, 1] - observations[1:, 0]) < 0.02
    last = np.arange(len(there)) == len(there) - 1
    return robo_rl.Episode(
        observations=observations,  # (T + 1, O)
        actions=log["speed_m_s"][:, None],  # (T, A), in m/s
        rewards=there - 1.0,
        terminations=there,
        truncations=last & ~there,
    )


def main(folder: pathlib.Path | None = None, episodes: int = 100, steps: int = 1_000) -> float:
    """Write, check, train, act. Returns how far the policy's speed is from the driver's, in m/s."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as temporary:
        here = pathlib.Path(folder or temporary)
        os.environ["MINARI_DATASETS_PATH"] = str(here / "datasets")
        robo_rl.write_dataset(
            DATASET,
            (episode(drive(rng)) for _ in range(episodes)),  # one is in memory at a time
            observation_space=gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64),
            action_space=gymnasium.spaces.Box(-LIMIT_M_S, LIMIT_M_S, (1,), np.float32),
            provenance=Provenance(control_hz=1 / PERIOD_S, reward=RewardLabel("own", "1")),
            overwrite=True,
        )
        report = robo_rl.check(DATASET)
        print(report.table())
        if report.exit_code:
            raise SystemExit("the check found errors: learn from these data once they are mended")
        run = robo_rl.train(DATASET, "bc", steps=steps, out=here / "run")
        policy = robo_rl.load_policy(robo_rl.export(run))
        off = 0.0
        for position in np.linspace(-1.0, 1.0, 9):
            speed = policy(np.array([position, 0.2]))  # in m/s
            asked = np.clip(2.0 * (0.2 - position), -LIMIT_M_S, LIMIT_M_S)
            print(f"at {position:+.2f} m, mark at +0.20 m: {speed[0]:+.2f} m/s (hand {asked:+.2f})")
            off = max(off, abs(float(speed[0]) - asked))
        return off


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:2]))
