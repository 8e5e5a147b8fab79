"""Rewards, ends and success: do they say the same, and of the same step?"""

from collections.abc import Sequence

import numpy as np

from robo_rl.data.checks.laws import ridge
from robo_rl.data.checks.motion import LEAST_EPISODES, LEAST_STEPS
from robo_rl.data.checks.values import reward_spikes
from robo_rl.data.checks.view import View, common_width, measurable
from robo_rl.data.minari_read import Dataset
from robo_rl.data.report import Confidence, Finding, Place, Severity, finding

# What a linear model leaves unexplained: much in the own step, little in the right one.
_LEAST_LEFT, _MOST_LEFT, _LAG_FACTOR = 0.01, 0.5, 0.5
_MOST_ROWS = 20_000
_ROWS_PER_INPUT = 5  # with fewer, a fit says nothing
_SHARE = 0.8
_PILE, _PILE_SHARE = 3, 0.5  # steps before the greatest length, and episodes that end there
_USUAL_CONSTANTS = {-1.0, 0.0, 1.0}  # a step's cost, no reward, survival


def label_findings(dataset: Dataset, views: Sequence[View]) -> tuple[list[Finding], list[str]]:
    """`reward_lag`, `reward_constant`, `limit_terminated`, `success_differs`, `single_steps`,
    `reward_spike`; and
    which of them could not be looked for, and why."""
    timing = "post" if dataset.provenance is None else dataset.provenance.reward.timing
    lag, blind = _reward_lag(views, timing)
    unknown = [] if blind is None else [f"a lag of rewards cannot be told: {blind}"]
    several = [view for view in views if view.steps > 1]
    if len(several) < LEAST_EPISODES:
        unknown.append(
            "constant rewards and time limits cannot be told: "
            f"{len(several)} episodes of two steps or more, this needs {LEAST_EPISODES}"
        )
    findings = [
        *lag,
        *_reward_constant(views),
        *_limit_terminated(dataset, views),
        *_success(views),
        *_single_steps(views),
        *reward_spikes(views),
    ]
    return findings, unknown


def _reward_lag(views: Sequence[View], timing: str) -> tuple[list[Finding], str | None]:
    """What was found, and why nothing could be."""
    if timing != "post":
        return [], "they are said to judge the state before the step"
    known = [
        view
        for view in views
        if view.vector is not None and view.rewards is not None and view.steps >= LEAST_STEPS
    ]
    width = common_width(view.vector.shape[1] for view in known if view.vector is not None)
    known = [v for v in known if v.vector is not None and v.vector.shape[1] == width]
    known = known[:: 1 + sum(view.steps for view in known) // _MOST_ROWS]
    if len(known) < LEAST_EPISODES:
        return [], (
            f"{len(known)} episodes with {LEAST_STEPS} steps and a vector of reals; "
            f"this needs {LEAST_EPISODES}"
        )
    first = np.asarray(known[0].rewards)[0]
    if all((np.asarray(view.rewards) == first).all() for view in known):
        return [], None  # what never changes is never late
    shares = {lag: _reward_explained(known, lag) for lag in (-1, 0, 1)}
    left = {lag: 1.0 - share for lag, share in shares.items() if share is not None}
    if len(left) < len(shares):
        return [], "too few steps for so many numbers"
    best = min(left, key=lambda lag: left[lag])
    if left[best] > _MOST_LEFT:
        return [], "no linear model of states and actions explains half of them"
    if best == 0 or left[0] < _LEAST_LEFT or left[best] > _LAG_FACTOR * left[0]:
        return [], None
    return [
        Finding(
            Severity.WARNING,
            "reward_lag",
            f"rewards are recorded one step {'late' if best < 0 else 'early'}: they follow from "
            f"the states and action of the step {'before' if best < 0 else 'after'}",
            len(known),
            len(known),
            (),
            "give each step the reward that it led to: shift the rewards by one",
            Confidence.MEDIUM,
            f"a linear model leaves {100 * left[best]:.0f} % unexplained there, "
            f"{100 * left[0]:.0f} % in its own step",
        )
    ], None


def _reward_explained(views: Sequence[View], lag: int) -> float | None:
    """Share of the reward's variance that the step at this lag explains, on episodes not fitted;
    None where these are too few."""
    halves = []
    for chosen in np.array_split(np.random.default_rng(0).permutation(len(views)), 2):
        inputs, rewards = [], []
        for view in (views[i] for i in chosen.tolist()):
            states = np.asarray(view.vector, np.float64)
            rows = np.arange(1, view.steps - 1) + lag
            parts = [states[rows], states[rows + 1], states[rows] ** 2]
            if view.moves is not None:
                actions = np.asarray(view.moves, np.float64)
                parts += [actions[rows], actions[rows] ** 2]
            inputs.append(np.concatenate(parts, axis=1))
            rewards.append(np.asarray(view.rewards, np.float64)[1:-1])
        halves.append((np.concatenate(inputs), np.concatenate(rewards)[:, None]))
    (fit, fit_rewards), (test, test_rewards) = halves
    if len(fit) < _ROWS_PER_INPUT * fit.shape[1]:
        return None
    if not all(measurable(part) for half in halves for part in half):
        return 0.0
    centre, size = fit.mean(axis=0), fit.std(axis=0) + 1e-9
    mean = fit_rewards.mean()
    weights = ridge((fit - centre) / size, fit_rewards - mean)
    error = test_rewards - mean - (test - centre) / size @ weights
    spread = float(test_rewards.var())
    return 1.0 - float((error**2).mean()) / spread if spread > 0.0 else 0.0


def _reward_constant(views: Sequence[View]) -> list[Finding]:
    rewards = [view.rewards for view in views if view.rewards is not None and view.steps > 1]
    if len(rewards) < LEAST_EPISODES:
        return []
    values = {float(one[0]) for one in rewards}
    if values & _USUAL_CONSTANTS or not all((one == one[0]).all() for one in rewards):
        return []
    steps = sum(len(one) for one in rewards)
    said = f"every step pays {values.pop():g}" if len(values) == 1 else "no episode's reward varies"
    return [
        Finding(
            Severity.WARNING,
            "reward_constant",
            f"{said}: nothing can be learned from it",
            steps,
            steps,
            (),
            "look at what computes the rewards, or label them again",
            Confidence.MEDIUM,
            "one value in all steps of each sampled episode, and none of -1, 0 and 1",
        )
    ]


def _limit_terminated(dataset: Dataset, views: Sequence[View]) -> list[Finding]:
    ended = [
        (view, bool(view.terminations[-1]))
        for view in views
        if view.terminations is not None and view.steps > 1
    ]
    if len(ended) < LEAST_EPISODES:
        return []
    spec = dataset.env_spec
    limit = None if spec is None else spec.max_episode_steps
    longest = max(view.steps for view, _ in ended)
    full = [(view, terminated) for view, terminated in ended if view.steps == longest]
    marked = [view for view, terminated in full if terminated]
    # Two ends of the task at one step are chance, four fifths of many are a limit. But policies
    # without noise end the task at about one step: then as many end just before.
    if len(full) < max(3, 0.1 * len(ended)) or len(marked) < _SHARE * len(full):
        return []
    exact = limit == longest
    near = sum(longest - _PILE <= view.steps < longest for view, _ in ended)
    if not exact and near > _PILE_SHARE * len(full):
        return []
    places: list[Place] = [(view.number, view.steps - 1) for view in marked]
    return finding(
        Severity.WARNING,
        "limit_terminated",
        f"episodes of the greatest length, {longest} steps, are marked terminated",
        places,
        len(ended),
        "if that is a time limit, mark it truncated: value goes on beyond it",
        Confidence.HIGH if exact else Confidence.LOW,
        "the environment's own limit" if exact else f"{len(full)} episodes have just this length",
    )


def _success(views: Sequence[View]) -> list[Finding]:
    known = [
        (view, np.asarray(view.infos["success"]).reshape(-1).astype(bool))
        for view in views
        if view.infos.get("success") is not None
        and view.infos["success"].shape in ((view.steps + 1,), (view.steps + 1, 1))
        and view.terminations is not None
        and view.steps > 1
    ]
    ended = [(v, s) for v, s in known if v.terminations is not None and v.terminations[-1]]
    if len(ended) < 3:
        return []
    odd = [(view.number, None) for view, success in ended if success[:-1].all() and not success[-1]]
    if len(odd) < _SHARE * len(ended):
        return []
    places: list[Place] = list(odd)
    return finding(
        Severity.WARNING,
        "success_differs",
        "success is true before the task ends and false when it does: inverted?",
        places,
        len(ended),
        "invert infos['success'], or find out what terminated means",
        Confidence.HIGH,
        "read off the labels of the sample",
    )


def _single_steps(views: Sequence[View]) -> list[Finding]:
    places: list[Place] = [(view.number, None) for view in views if view.steps == 1]
    if len(places) < 0.5 * len(views):
        return []
    return finding(
        Severity.WARNING,
        "single_steps",
        "episodes of a single step: a recording was split everywhere, or the task is a bandit",
        places,
        len(views),
        "join steps that follow each other into episodes; returns, chunks and these checks of "
        "meaning need them",
        Confidence.MEDIUM,
        "half of the sample or more",
    )
