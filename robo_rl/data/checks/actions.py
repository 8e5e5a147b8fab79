"""Do the actions do what they say? Lags, inverted and exchanged actions, states out of order."""

import itertools

import numpy as np

from robo_rl.data.checks.laws import StateLaws, ridge
from robo_rl.data.checks.motion import Motion
from robo_rl.data.checks.policies import follows_from_state, made_by_policy
from robo_rl.data.report import Confidence, Finding, Place, Severity, finding

ROWS_PER_INPUT = 5  # with fewer, a fit says nothing
_LAGS = (-1, 0, 1)
# The right action explains what the others leave; those of another time nothing, but for what a
# policy gives away of the next state. Sound recordings stay below 2.5 times.
_LAG_RATIO, _LAG_GAIN = 3.0, 0.05
_NO_GAIN = 0.02
_CLIP = 2.0  # times the range of nine tenths of the changes
_SURE, _QUITE = 3.0, 2.0  # standard errors
_FLIP_GAIN = 1.6  # sound recordings stay below 1.3
_FLIP_SHARE = 0.15
_SWAP_SHARE, _SWAP_LEAST = 0.25, 5  # of the episodes, and episodes
_UNORDERED = 0.46  # half at random; sound recordings stay below 0.3
_GOES_ON = 0.4
"""In the median episode; by chance it is half."""
_ORDERED_ROWS = 200


def lag_findings(motion: Motion) -> tuple[list[Finding], str | None]:
    """`action_lag`: the actions of the step before or after explain the motion, its own do not;
    and why this cannot be told, where it cannot."""
    gains = {lag: _unique_gain(motion, lag) for lag in _LAGS}
    best = max(gains, key=lambda lag: gains[lag])
    if gains[best] < _NO_GAIN:
        return [], "actions of no step explain any of the motion that the others do not"
    if best == 0 or gains[best] < _LAG_GAIN or gains[best] < _LAG_RATIO * gains[0]:
        return [], None
    if best > 0 and follows_from_state(motion):
        return [], "actions follow from the state of their own row, so a lag cannot be told"
    when, where = ("late", "next") if best > 0 else ("early", "previous")
    ratio = gains[best] / max(gains[0], 1e-3)
    return [
        Finding(
            Severity.WARNING,
            "action_lag",
            f"actions are recorded one step {when}: the {where} row's action explains the motion, "
            f"that of the row itself adds nothing",
            len(motion.courses),
            len(motion.courses),
            (),
            "pair each state with the action that was sent from it: shift the actions by one",
            Confidence.HIGH if ratio > 8.0 else Confidence.MEDIUM,
            f"share of the motion that only this action explains {gains[best]:.2f}, own "
            f"{max(gains[0], 0.0):.2f}",
        )
    ], None


def _unique_gain(motion: Motion, lag: int) -> float:
    """How much better the most controlled columns are predicted with the action at this lag than
    with all others only, in episodes that were not fitted."""
    others = tuple(other for other in _LAGS if other != lag)
    gain = _explained(motion, _LAGS) - _explained(motion, others)
    return float(np.sort(gain)[-max(1, len(gain) // 6) :].mean())


def _explained(motion: Motion, lags: tuple[int, ...]) -> np.ndarray:
    """(D,) share of the change's variance that a linear model of state and actions explains."""
    halves = []
    # Not every second episode: that may be just how two recorders took turns.
    for chosen in np.array_split(np.random.default_rng(0).permutation(len(motion.courses)), 2):
        inputs, changes = [], []
        for course in (motion.courses[i] for i in chosen.tolist()):
            steps = len(course.actions)
            rows = [course.states[1 : steps - 1], np.ones((steps - 2, 1))]
            rows += [course.actions[1 + lag : steps - 1 + lag] for lag in lags]
            inputs.append(np.concatenate(rows, axis=1))
            changes.append(course.states[2:steps] - course.states[1 : steps - 1])
        halves.append((np.concatenate(inputs), np.concatenate(changes)))
    # A reset among the steps must not outweigh them.
    low, high = np.percentile(np.concatenate([half[1] for half in halves]), (5, 95), axis=0)
    wide = _CLIP * (high - low)
    halves = [(inputs, np.clip(moved, low - wide, high + wide)) for inputs, moved in halves]
    explained = []
    for (inputs_fit, changes_fit), (inputs_test, changes_test) in (halves, halves[::-1]):
        weights = ridge(inputs_fit, changes_fit, 1e-4)
        error = ((changes_test - inputs_test @ weights) ** 2).mean(axis=0)
        explained.append(np.clip(1.0 - error / (changes_test.var(axis=0) + 1e-9), -1.0, 1.0))
    return np.asarray(np.mean(explained, axis=0))


def inverted_actions(motion: Motion, effects: np.ndarray) -> list[Finding]:
    """`action_inverted`: an action moves everything the other way in some episodes."""
    out: list[Finding] = []
    usual = np.percentile(abs(effects), 75, axis=0)
    for action in range(effects.shape[1]):
        sure = effects[:, action].clip(-20.0, 20.0)
        best, few = 0.0, np.zeros(len(sure), bool)
        for column in np.flatnonzero(usual[action] > _SURE).tolist():
            plus, minus = (sure[:, column] > _QUITE).mean(), (sure[:, column] < -_QUITE).mean()
            if min(plus, minus) < _FLIP_SHARE:
                continue
            sign = np.where(sure[:, column] < 0.0, -1.0, 1.0)
            # That one column changes its sign proves nothing; that all others do with it does.
            rest = np.delete(sure, column, axis=1)
            gain = _agreement(sign[:, None] * rest) / max(_agreement(rest), 1e-6)
            if gain > best:
                best, few = gain, sign < 0 if plus >= minus else sign > 0
        if best > _FLIP_GAIN and not made_by_policy(motion, action, few):
            out += _inverted(motion, action, few, best)
    return out


def _inverted(motion: Motion, action: int, few: np.ndarray, gain: float) -> list[Finding]:
    return finding(
        Severity.WARNING,
        "action_inverted",
        f"action {action} moves things the other way in some episodes",
        _places(motion, few),
        len(motion.courses),
        "give it one sign in all episodes (a gripper's open and closed are often exchanged)",
        Confidence.HIGH if gain > 5.0 else Confidence.MEDIUM,
        f"with its sign turned there, episodes agree {gain:.1f} times as well on what it moves",
    )


def _agreement(sure: np.ndarray) -> float:
    return float(abs(sure.sum(axis=0)).sum() / max(abs(sure).sum(), 1e-9))


def exchanged_actions(motion: Motion, effects: np.ndarray) -> list[Finding]:
    """`actions_swapped`: two actions that do each other's work in some episodes."""
    usual = np.percentile(abs(effects), 75, axis=0)
    best, found = 0.0, (0, 0, np.zeros(len(effects), bool))
    for one, other in itertools.combinations(range(effects.shape[1]), 2):
        strong_one, strong_other = usual[one].argsort()[-3:], usual[other].argsort()[-3:]
        pairs = [(a, b) for a in strong_one for b in strong_other if a != b]
        if not pairs:
            continue
        here, there = max(pairs, key=lambda pair: usual[one, pair[0]] + usual[other, pair[1]])
        own = abs(effects[:, one, here]) + abs(effects[:, other, there])
        swapped = abs(effects[:, one, there]) + abs(effects[:, other, here])
        plus, minus = (own - swapped > _SURE).mean(), (own - swapped < -_SURE).mean()
        if min(plus, minus) > best:
            few = own < swapped if plus >= minus else own > swapped
            best, found = float(min(plus, minus)), (one, other, few)
    one, other, few = found
    if best < _SWAP_SHARE or few.sum() < _SWAP_LEAST:
        return []
    return finding(
        Severity.WARNING,
        "actions_swapped",
        f"actions {one} and {other} do each other's work in some episodes",
        _places(motion, few),
        len(motion.courses),
        "put the actions in one order in all episodes",
        Confidence.HIGH if best > 0.4 else Confidence.MEDIUM,
        f"{100 * best:.0f} % of the episodes say one order surely, as many or more the other",
    )


def order_findings(motion: Motion, laws: StateLaws) -> list[Finding]:
    """`unordered`: the next state is no nearer than any other of the episode, and no law holds."""
    nearer = _nearer_shares(motion)
    # A fast gait comes back to where it was; but its positions follow its velocities.
    strict = laws.explained[:, laws.strict, laws.partner[laws.strict]]
    lawful = (strict > 0.5).any(axis=1)
    odd = np.flatnonzero((nearer > _UNORDERED) & ~lawful)
    if len(odd) < 0.1 * len(nearer):
        return []
    return finding(
        Severity.WARNING,
        "unordered",
        "states follow each other in no order: others of the episode are as near as the next one",
        [(motion.courses[i].number, None) for i in odd.tolist()],
        len(nearer),
        "sort the steps by their time; learners take the next row for what the action led to",
        Confidence.HIGH,
        f"{100 * float(np.median(nearer[odd])):.0f} % of the other states are nearer than the "
        "next (half by chance)",
    )


def _nearer_shares(motion: Motion) -> np.ndarray:
    """Share (episodes,) of an episode's other states that are nearer than the next: of all numbers
    together, or of the one that goes on best in most episodes, however the others jump."""
    episodes = [course.states[:_ORDERED_ROWS] for course in motion.courses]
    whole = np.array([_nearer(rows) for rows in episodes])
    alone = np.array(
        [[_alone(rows[:, i]) for i in range(episodes[0].shape[1])] for rows in episodes]
    )
    usual = np.median(alone, axis=0)
    best = int(usual.argmin())
    return np.minimum(whole, alone[:, best]) if usual[best] < _GOES_ON else whole


def _alone(column: np.ndarray) -> float:
    """Of one number; 1 where it takes few values, which says nothing of the order."""
    return _nearer(column[:, None]) if 2 * len(np.unique(column)) > len(column) else 1.0


def _nearer(rows: np.ndarray) -> float:
    count = len(rows) - 1
    square = (rows**2).sum(axis=1)
    far = square[:-1, None] + square[None] - 2.0 * rows[:-1] @ rows.T
    following = far[np.arange(count), np.arange(count) + 1]
    far[np.arange(count), np.arange(count)] = np.inf
    return float((far < following[:, None]).sum(axis=1).mean() / max(count - 1, 1))


def _places(motion: Motion, chosen: np.ndarray) -> list[Place]:
    return [(motion.courses[i].number, None) for i in np.flatnonzero(chosen).tolist()]
