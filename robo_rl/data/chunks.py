"""Transitions seen in chunks of actions: what Q-chunking learns from (arXiv:2507.07969).

A chunk is a view of the data: to a learner it is one step, with one action in a larger box.
"""

import numpy as np

from robo_rl.data.returns import window_returns
from robo_rl.data.transitions import Transitions, episode_ends, recording_ends, take


def chunk(
    transitions: Transitions, length: int, discount: float, *, short: bool = False
) -> Transitions:
    """Every window of `length` steps = H that lies within one episode, in order.

    Args:
        transitions: flat, N rows, with `episode_id`.
        length: H, at least 1.
        discount: in (0, 1].
        short: also those that begin in the last H - 1 steps of an episode and run past its end.

    Returns:
        M <= N rows, one for each window. `actions` (M, H * A) are the window's, one step after the
        other; `rewards` (M,) their discounted sum; `discounts` (M,) = discount ** H belongs on the
        bootstrap. What follows a step (`masks`, `terminated`, `truncated` and `next_...`) is that
        of the window's last step, all else that of its first. `next_actions` are left out.

    Unless `short`, a window that would run on past an episode's end is dropped. With it, `valid`
    (M, H) is 1 at the steps that are within the episode; at the others the last action stands
    again, for the learner to leave out. The window that ends exactly with the episode has the
    terminal mask. Where the recording went on after the task terminated
    (`relabel.AfterSuccess` "keep"), so does the window: its rewards and what follows are those of
    the step that terminated, with mask 0.
    """
    if length < 1:
        raise ValueError(f"chunk: length must be >= 1, got {length}")
    ends = episode_ends(transitions)
    # Of every row, the last one of its recording.
    stops = np.flatnonzero(recording_ends(transitions))
    final = np.repeat(stops, np.diff(stops, prepend=-1))
    whole = np.arange(len(ends)) + length - 1 <= final
    if not whole.any():
        raise ValueError(
            f"chunk: no episode has {length} steps; use a shorter chunk or longer episodes"
        )
    starts = np.arange(len(ends)) if short else np.flatnonzero(whole)
    steps = starts[:, None] + np.arange(length)
    window = np.minimum(steps, final[starts, None])
    rewards = np.asarray(transitions["rewards"])[window]
    sums, column, discounts = window_returns(rewards, ends[window], discount)
    last = starts + column
    out = {
        name: take(value, last if _follows(name) else starts)
        for name, value in transitions.items()
        if name != "next_actions"
    }
    out["rewards"], out["discounts"] = sums, discounts
    out["actions"] = np.asarray(transitions["actions"])[window].reshape(len(starts), -1)
    if short:
        out["valid"] = (steps == window).astype(np.float32)
    return out


def _follows(name: str) -> bool:
    return name in ("masks", "terminated", "truncated") or name.startswith("next_")
