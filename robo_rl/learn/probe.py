"""The critics between updates: what the offline workflow watches (Kumar et al., 2021).

"A Workflow for Offline Model-Free Robotic RL", arXiv:2109.10813, tells over- from underfitting by
curves of the TD error and of Q on the data's actions. They are taken here on a batch of rows that
the seed draws once, outside of the updates: these stay as fast as they are, and the curves move
with the critics, not with the rows. An agent takes part by declaring `q_values`; see
`robo_rl.learn.contract`. What the curves mean is in `robo_rl.judge.critics`.
`robo_rl.learn.contract.Capabilities`. What the curves mean is in `robo_rl.judge.critics`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robo_rl.learn.contract import Agent, State
from robo_rl.nn import losses
from robo_rl.nn.apply import Batch, Metrics

ROWS = 1024
"""Of a probe. Measuring it costs less than ten updates, and is done once in `log_every`."""
_NOISE_STREAM = 2**32 - 1
"""The number of an update that never comes: this folds nothing into a key that an update does."""


@dataclasses.dataclass(frozen=True)
class Probe:
    """The rows, and the keys of the noise of stochastic policies: the same at every measurement."""

    batch: Batch  # leaves ([S,] P, ...)
    keys: jax.Array  # ([S])


def draw(
    agent: Agent,
    gather: Callable[[np.ndarray], Batch],
    size: int,
    seed: int,
    keys: jax.Array,
) -> Probe | None:
    """Up to `ROWS` rows (P,) without repeats, for seeds `seed`, `seed` + 1, ... of `keys` ([S]).

    `gather` gives the rows of given numbers ([S,] P) out of `size`. None where the agent declares
    no `q_values`.
    """
    if agent.CAPABILITIES.q_values is None:
        return None
    rows = np.array(
        [
            np.random.default_rng(number).choice(size, min(size, ROWS), replace=False)
            for number in range(seed, seed + keys.size)
        ]
    )
    return Probe(gather(rows if keys.ndim else rows[0]), keys)


def measure(agent: Agent, config: Any, state: State, probe: Probe | None) -> Metrics:
    """Metrics ([S]) of the critics on the probe; none without one.

    - `probe_td_error`: mean of (Q(s, a) - target)^2, where target = r + discount * mask * next and
      next is Q(s', policy(s')), or V(s') for an agent with `state_values`: current critics on both
      sides, the same for all methods, with no regulariser in it
    - `probe_data_q`: mean of Q at the data's actions
    - `probe_policy_gap`: mean of Q at the policy's actions less that
    - `probe_target_std`: spread of the targets, the scale by which the others are large or small
    """
    if probe is None:
        return {}
    measured: Metrics = _measure(agent, config, probe.keys.ndim > 0, state, probe.batch, probe.keys)
    return measured


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _measure(
    agent: Agent, config: Any, many: bool, state: State, batch: Batch, keys: jax.Array
) -> Metrics:
    q_values, state_values = agent.CAPABILITIES.q_values, agent.CAPABILITIES.state_values
    assert q_values is not None

    def one(state: State, batch: Batch, key: jax.Array) -> Metrics:
        here_key, next_key = jax.random.split(jax.random.fold_in(key, _NOISE_STREAM))
        obs, next_obs = batch["observations"], batch["next_observations"]
        data_q = q_values(config, state, obs, batch["actions"])
        policy_q = q_values(config, state, obs, agent.act(config, state, obs, here_key))
        if state_values is not None:
            following = state_values(config, state, next_obs)
        else:
            next_actions = agent.act(config, state, next_obs, next_key)
            following = q_values(config, state, next_obs, next_actions)
        discounts = batch.get("discounts", config.discount)
        target = losses.td_target(batch["rewards"], discounts, batch["masks"], following)
        mean: Callable[[jax.Array], jax.Array] = jnp.mean
        if "valid" in batch:
            # A chunk that its episode cuts short is no transition: over the others alone.
            whole = batch["valid"][:, -1]
            mean = functools.partial(_weighted_mean, whole / jnp.maximum(jnp.mean(whole), 1e-6))
        return {
            "probe_td_error": mean(jnp.square(data_q - target)),
            "probe_data_q": mean(data_q),
            "probe_policy_gap": mean(policy_q) - mean(data_q),
            "probe_target_std": jnp.sqrt(mean(jnp.square(target - mean(target)))),
        }

    return (jax.vmap(one) if many else one)(state, batch, keys)


def _weighted_mean(weight: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.mean(weight * values)
