"""Warm starts: what one method takes over of what another one has learned (`policies.Learned`).

Arrays are copied: those of the offline agent stay with their owner, as a loop may donate ours.
"""

import dataclasses
from collections.abc import Collection
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.nn import policies
from robo_rl.nn.apply import Params
from robo_rl.nn.networks import NetConfig

C = TypeVar("C")
T = TypeVar("T")


def copied(tree: T) -> T:
    """The same arrays, of our own."""
    out: T = jax.tree.map(jnp.copy, tree)
    return out


def with_critics(config: C, learned: policies.Learned) -> C:
    """`config` with shape and number of the learned critics; as it is where there are none."""
    if learned.critic_net is None:
        return config
    changed: Any = config
    return dataclasses.replace(  # type: ignore[no-any-return]
        changed,
        critic=learned.critic_net,
        critics=learned.critics,
        subset=min(changed.subset, learned.critics),
    )


def check_resets(agent: str, reset: Collection[str], known: tuple[str, ...]) -> None:
    """Each part that shall start fresh must be one that `agent` has."""
    for name in reset:
        checks.one_of(f"{agent}.warm_start reset", name, known)


def check_net(agent: str, what: str, learned: NetConfig | None, wanted: NetConfig) -> None:
    """A learned network must have the shape that the config asks for."""
    if learned != wanted:
        raise ValueError(
            f"{agent}.warm_start: the learned {what} is {learned}, the config asks for {wanted}; "
            f"use {agent}.adopt"
        )


def critics(
    agent: str, learned: policies.Learned, net: NetConfig, count: int
) -> tuple[Params, Params, optax.OptState]:
    """The learned critics, their targets and their moments. They must be `count` of shape `net`."""
    if learned.critic_net != net or learned.critics != count:
        raise ValueError(
            f"{agent}.warm_start: {learned.critics} critics {learned.critic_net} were learned, the "
            f"config asks for {count} critics {net}; use {agent}.adopt"
        )
    assert learned.critic is not None
    assert learned.target_critic is not None
    return copied((learned.critic, learned.target_critic, learned.critic_opt))
