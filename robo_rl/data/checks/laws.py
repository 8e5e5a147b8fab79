"""What moves with what, episode by episode: a position with its velocity, a state with an action.

A law holds in every episode of a sound recording, with one slope. Where half of the episodes have
another slope, two recorders were at work.
"""

import dataclasses

import numpy as np

from robo_rl.data.checks.motion import Motion

# A law is one that explains this share of a column's changes in a quarter of the episodes or more.
STRICT = 0.75


@dataclasses.dataclass(frozen=True)
class StateLaws:
    """How the change of each column (D,) goes with the middle of each other column (D,).

    N episodes; slopes are in units of the spreads.
    """

    slopes: np.ndarray  # (N, D, D) change of the first per unit of the second
    explained: np.ndarray  # (N, D, D) share of the change's variance
    partner: np.ndarray  # (D,) the column that explains the change of each best
    strict: np.ndarray  # (L,) columns with a law worth the name

    def slope(self, column: int) -> np.ndarray:
        """(N,) of the column's law, NaN in episodes where it does not hold."""
        partner = self.partner[column]
        holds = self.explained[:, column, partner] > 0.5
        return np.where(holds, self.slopes[:, column, partner], np.nan)


def state_laws(motion: Motion) -> StateLaws:
    """From the changes of each episode and the states halfway."""
    slopes, explained = [], []
    for course in motion.courses:
        change = np.diff(course.states, axis=0)
        middle = (course.states[1:] + course.states[:-1]) / 2.0
        change, middle = change - change.mean(axis=0), middle - middle.mean(axis=0)
        size, size_middle = (change**2).sum(axis=0), (middle**2).sum(axis=0)
        both = change.T @ middle
        slopes.append(both / np.maximum(size_middle, 1e-9))
        explained.append(both**2 / np.maximum(np.outer(size, size_middle), 1e-12))
    shares = np.array(explained)
    diagonal = np.arange(shares.shape[1])
    shares[:, diagonal, diagonal] = 0.0
    usual = np.percentile(shares, 75, axis=0)
    partner = usual.argmax(axis=1)
    strict = np.flatnonzero(usual[diagonal, partner] > STRICT)
    return StateLaws(np.array(slopes), shares, partner, strict)


def action_effects(motion: Motion) -> np.ndarray | None:
    """(N, A, D) how surely each action moves each column in each episode, in standard errors.

    What the state itself explains is taken off first. None where there are no actions.
    """
    if not motion.courses[0].actions.shape[1]:
        return None
    inputs = np.concatenate([_with_one(course.states[:-1]) for course in motion.courses])
    changes = np.concatenate([np.diff(course.states, axis=0) for course in motion.courses])
    weights = ridge(inputs, changes)
    out = []
    for course in motion.courses:
        rest = np.diff(course.states, axis=0) - _with_one(course.states[:-1]) @ weights
        out.append(_surenesses(course.actions, rest - rest.mean(axis=0)))
    return np.array(out)


def ridge(inputs: np.ndarray, targets: np.ndarray, strength: float = 1e-3) -> np.ndarray:
    """Least squares with a little shrinkage."""
    gram = inputs.T @ inputs + strength * len(inputs) * np.eye(inputs.shape[1])
    return np.linalg.solve(gram, inputs.T @ targets)


def _surenesses(actions: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(A, D) coefficients over their standard errors."""
    actions = actions - actions.mean(axis=0)
    steps, size = actions.shape
    inverse = np.linalg.inv(actions.T @ actions + 1e-3 * steps * np.eye(size))
    effect = inverse @ actions.T @ rest
    noise = ((rest - actions @ effect) ** 2).sum(axis=0) / max(1, steps - size - 1)
    sureness: np.ndarray = effect / (np.sqrt(np.outer(np.diag(inverse), noise)) + 1e-9)
    return sureness


def _with_one(states: np.ndarray) -> np.ndarray:
    return np.concatenate([states, np.ones((len(states), 1))], axis=1)
