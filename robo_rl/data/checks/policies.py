"""What of the actions a policy explains, which gives them by the state: this is no defect."""

import numpy as np

from robo_rl.data.checks.laws import ridge
from robo_rl.data.checks.motion import Course, Motion

# Of the actions, the state of their row leaves this unexplained, and with the state before this
# share of that: policies without noise stay above 0.9, late actions below 0.83.
_GIVEN, _EXACTLY, _NO_BETTER = 0.5, 0.02, 0.85
# A policy explains this share of an action in some episodes; and where this turns around, an
# action is inverted.
_POLICY, _TURNED = 0.5, -0.5


def follows_from_state(motion: Motion) -> bool:
    """Whether a policy gives the actions by the state of their own row.

    Then the next row's action tells of the next state, as one does that is recorded late. But the
    state before says nothing of it, where of a late action, which led from there, it says all.
    """
    halves = []
    for chosen in np.array_split(np.random.default_rng(0).permutation(len(motion.courses)), 2):
        courses = [motion.courses[i] for i in chosen.tolist()]
        here = np.concatenate([c.states[1:-1] for c in courses])
        before = np.concatenate([c.states[:-2] for c in courses])
        acts = np.concatenate([c.actions[1:] for c in courses])
        ones = np.ones((len(here), 1))
        halves.append((np.c_[ones, here], np.c_[ones, here, before], acts))
    left = []
    for inputs in (0, 1):
        errors = []
        for fit, test in (halves, halves[::-1]):
            weights = ridge(fit[inputs], fit[2], 1e-4)
            errors.append(((test[2] - test[inputs] @ weights) ** 2).mean(axis=0))
        left.append(np.mean(errors, axis=0))
    spread = np.concatenate([half[2] for half in halves]).var(axis=0) + 1e-9
    own, both = (np.clip(part / spread, 0.0, 1.0) for part in left)
    if own.mean() > _GIVEN:
        return False
    return bool(own.mean() < _EXACTLY or both.mean() > _NO_BETTER * own.mean())


def made_by_policy(motion: Motion, action: int, few: np.ndarray) -> bool:
    """Whether what an action seems to do in some episodes (N,) may be what its policy does.

    A policy pushes where the state moves on by itself, and it seems as if the push did it. If the
    action were inverted in some episodes, its policy would be so there, too.
    """
    groups = [
        [course for course, one in zip(motion.courses, few.tolist(), strict=True) if one is chosen]
        for chosen in (True, False)
    ]
    fits = [_policy(group, action) for group in groups]
    states = np.concatenate([course.states[:-1] for course in motion.courses])
    said = [states @ weights[1:] for _, weights in fits]
    if max(explained for explained, _ in fits) < _POLICY:
        return False
    size = float(said[0].std() * said[1].std())
    alike = float(np.cov(said[0], said[1])[0, 1]) / size if size > 0.0 else 0.0
    turned = min(explained for explained, _ in fits) > _POLICY / 2.0 and alike < _TURNED
    return not turned


def _policy(courses: list[Course], action: int) -> tuple[float, np.ndarray]:
    """The share of an action that the state explains linearly, and the weights (1 + D,)."""
    states = np.concatenate([course.states[:-1] for course in courses])
    acts = np.concatenate([course.actions[:, action] for course in courses])
    inputs = np.c_[np.ones(len(states)), states]
    weights = ridge(inputs, acts[:, None])[:, 0]
    error = float(((acts - inputs @ weights) ** 2).mean())
    return 1.0 - error / (float(acts.var()) + 1e-9), weights
