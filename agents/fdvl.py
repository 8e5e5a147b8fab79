"""f-DVL (Sikchi et al., "Dual RL", ICLR 2024, arXiv:2302.08560): XQL with tamer losses of V.

The exponential of Gumbel regression is the conjugate of the reverse KL; other f-divergences have
conjugates that grow linearly or quadratically. With lambda in (0, 1) and u = q - v:

- total variation: lambda * max(u, 0) - (1 - lambda) * u. This is quantile regression: V is the
  (2 lambda - 1) / lambda quantile of Q under the data.
- chi-square: lambda * 1[u > 0] (u + u^2 / 4) - (1 - lambda) * u. The released code has
  max(u + u^2 / 4, 0), which is positive again below u = -4 and there pulls V down: where Q spreads
  by more than about 4, V stays far below the maximum. Up to there the two are the same.
"""

import dataclasses

import jax.numpy as jnp

from robo_rl.agents import checks, iql
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import losses
from robo_rl.nn.apply import Batch, Metrics

DIVERGENCES = ("total_variation", "chi_square")

State = iql.State
init = iql.init
act = iql.act
policy = iql.policy
learned = iql.learned
q_values = iql.q_values
state_values = iql.state_values


@dataclasses.dataclass(frozen=True)
class Config(iql.Common):
    """Hyperparameters."""

    divergence: str = "total_variation"
    """"total_variation" or "chi_square". The quadratic term of the latter has the units of the
    return: it counts where Q spreads by more than about 4."""
    lam: float = 0.8
    """Lambda; towards 1 the maximum. The authors use 0.8 with total variation on AntMaze."""
    huber: float = 20.0
    """TD error from which on the loss of Q is linear; 0 for the squared error."""
    temperature: float = 3.0
    """Inverse temperature of the advantage weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("fdvl.Config.divergence", self.divergence, DIVERGENCES)
        # With total variation, up to 1/2 the loss falls for ever as V goes to minus infinity.
        lowest = 0.5 if self.divergence == "total_variation" else 0.0
        checks.inside("fdvl.Config.lam", self.lam, lowest)
        checks.not_negative("fdvl.Config.huber", self.huber)
        checks.not_negative("fdvl.Config.temperature", self.temperature)


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`iql.step` with the loss of V that belongs to the divergence."""
    tv = config.divergence == "total_variation"
    value_loss = losses.total_variation_loss if tv else losses.chi_square_loss
    return iql.step(
        config,
        state,
        batch,
        temperature=config.temperature,
        value_loss=lambda u: value_loss(u, config.lam),
        critic_loss=(lambda u: losses.huber_loss(u, config.huber)) if config.huber else jnp.square,
    )


CAPABILITIES = Capabilities(q_values=q_values, state_values=state_values, learned=learned)
