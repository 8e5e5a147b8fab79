"""Cal-QL (Nakamoto et al., 2023, arXiv:2303.05479): CQL that pushes down no further than the data.

In CQL's regulariser, Q of the policy's actions counts at least the return that was seen from there,
so that values keep the scale of returns and finetuning need not first unlearn their pessimism. The
uniform actions and the data's own are left as they are. "bound_rate" is the share of values that
the bound holds: it starts near 1 and falls.
"""

import dataclasses
import functools

import jax

from robo_rl.agents import checks, cql, sac
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn.apply import Batch, Metrics
from robo_rl.nn.normaliser import Normaliser

_NEEDS = ("returns",)

State = sac.State
act = sac.act
policy = sac.policy
learned = sac.learned
q_values = sac.q_values


@dataclasses.dataclass(frozen=True)
class Config(cql.Common):
    """Hyperparameters."""

    endless_returns: bool = True
    """Take an episode that time cut, with the same reward at every step, to go on for ever: without
    this a late failure looks better than an early one."""


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """CQL's state."""
    checks.needed("calql", example_batch, _NEEDS)
    return cql.init(config, key, example_batch, normaliser)


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`utd` critic steps on consecutive slices, then one actor and temperature step on the last."""
    return sac.stepped(config, state, batch, functools.partial(cql.critic_step, config))


CAPABILITIES = Capabilities(needs=_NEEDS, q_values=q_values, learned=learned)
