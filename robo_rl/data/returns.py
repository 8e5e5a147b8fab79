"""Sums of rewards that never reach across the end of an episode."""

import numpy as np

from robo_rl.data.transitions import Transitions, episode_ends, take


def window_returns(
    rewards: np.ndarray, stops: np.ndarray, discount: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n-step sums over windows of n steps.

    Args:
        rewards: (B, n).
        stops: (B, n) bool, true where the window must not go past that step.
        discount: in (0, 1].

    Returns:
        The discounted sums (B,), the column of the last step that counts (B,), and the factor (B,)
        on the value of the state after it, discount ** steps.
    """
    n = rewards.shape[1]
    last = np.where(stops.any(axis=1), stops.argmax(axis=1), n - 1)
    powers = discount ** np.arange(n + 1, dtype=np.float64)
    live = np.arange(n) <= last[:, None]
    sums = (rewards * live) @ powers[:n]
    return sums.astype(np.float32), last, powers[last + 1].astype(np.float32)


def n_step(transitions: Transitions, n: int, discount: float) -> Transitions:
    """Every transition stretched to up to n steps, cut where its episode ends.

    `rewards` become discounted sums; `next_observations`, `masks`, `terminated`, `truncated` and,
    where present, `next_actions` are those of the last step counted; `discounts` (N,) belongs on
    the bootstrap.
    """
    if n < 1:
        raise ValueError(f"n_step: n must be >= 1, got {n}")
    ends = episode_ends(transitions)
    rows = np.arange(len(ends))[:, None] + np.arange(n)
    # The last row is an end, so a window never counts what the clipping repeats.
    rows = np.minimum(rows, len(ends) - 1)
    rewards = np.asarray(transitions["rewards"])
    sums, last, discounts = window_returns(rewards[rows], ends[rows], discount)
    far = rows[np.arange(len(ends)), last]
    out = dict(transitions)
    for name in ("next_observations", "next_actions", "masks", "terminated", "truncated"):
        if name in out:
            out[name] = take(transitions[name], far)
    return {**out, "rewards": sums, "discounts": discounts}


def monte_carlo_returns(
    rewards: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    discount: float,
    *,
    endless: bool = False,
) -> np.ndarray:
    """Discounted return-to-go (N,), cut at `terminated` and at `truncated`.

    With `endless`, an episode that was truncated and paid the same reward r at every step is taken
    to pay it for ever: r / (1 - discount), the tail that Cal-QL and WSRL use where -1 means "not
    there yet" (a truncated sum would call a late failure better than an early one).
    """
    if endless and not discount < 1.0:
        raise ValueError(f"monte_carlo_returns: endless needs discount < 1, got {discount}")
    ends = np.asarray(terminated, bool) | np.asarray(truncated, bool)
    out = np.empty(len(rewards), np.float64)
    running = 0.0
    end_list = ends.tolist()
    reward_list = np.asarray(rewards, np.float64).tolist()
    for row in range(len(reward_list) - 1, -1, -1):
        running = reward_list[row] + (0.0 if end_list[row] else discount * running)
        out[row] = running
    if endless:
        _pay_for_ever(out, np.asarray(rewards, np.float64), ends, terminated, discount)
    return out.astype(np.float32)


def _pay_for_ever(
    out: np.ndarray,
    rewards: np.ndarray,
    ends: np.ndarray,
    terminated: np.ndarray,
    discount: float,
) -> None:
    start = 0
    for stop in (np.flatnonzero(ends) + 1).tolist():
        span = rewards[start:stop]
        if not terminated[stop - 1] and (span == span[0]).all():
            out[start:stop] = span[0] / (1.0 - discount)
        start = stop
