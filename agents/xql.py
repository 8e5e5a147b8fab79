"""XQL, extreme Q-learning (Garg et al., 2023, arXiv:2301.02328), offline.

IQL with Gumbel regression in place of expectiles: V estimates the soft maximum
beta * log E exp(Q / beta) under the data's actions. Q is fitted by the Huber loss, as in the
authors' code. Everything else is IQL's.
"""

import dataclasses

import jax.numpy as jnp

from robo_rl.agents import checks, iql
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import losses
from robo_rl.nn.apply import Batch, Metrics

State = iql.State
init = iql.init
act = iql.act
policy = iql.policy
learned = iql.learned
q_values = iql.q_values
state_values = iql.state_values


@dataclasses.dataclass(frozen=True)
class Config(iql.Common):
    """Hyperparameters. Beta is in units of the return: it has to grow with the rewards."""

    beta: float = 2.0
    """Temperature of the Gumbel regression; towards 0 the maximum, towards infinity the mean.
    The authors' single settings: 2 on MuJoCo, 0.6 on AntMaze, 5 on Kitchen."""
    z_clip: float = 7.0
    """Upper bound on z = (q - v) / beta; beyond it a row has no gradient on V."""
    huber: float = 20.0
    """TD error from which on the loss of Q is linear; 0 for the squared error."""
    temperature: float = 3.0
    """Inverse temperature of the advantage weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.positive("xql.Config.beta", self.beta)
        checks.positive("xql.Config.z_clip", self.z_clip)
        checks.not_negative("xql.Config.huber", self.huber)
        checks.not_negative("xql.Config.temperature", self.temperature)


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`iql.step` with the Gumbel loss of V and the Huber loss of Q."""
    return iql.step(
        config,
        state,
        batch,
        temperature=config.temperature,
        value_loss=lambda u: losses.gumbel_loss(u, config.beta, config.z_clip),
        critic_loss=(lambda u: losses.huber_loss(u, config.huber)) if config.huber else jnp.square,
    )


CAPABILITIES = Capabilities(q_values=q_values, state_values=state_values, learned=learned)
