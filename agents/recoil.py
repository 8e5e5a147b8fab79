"""ReCOIL: imitation of an expert with the help of any other data (Sikchi et al., "Dual RL", ICLR
2024, arXiv:2302.08560). Rewards are not read; `expert` (B,) marks the expert's rows.

The published objective matches mixtures, so that the other data S need not cover the expert E. With
M = beta E + (1 - beta) S and y = discount * V(s') - Q(s, a):

    max_pi min_Q  beta (1 - discount) E_d0[V] + E_M[f*(y)] - (1 - beta) E_S[y]

What follows is derived here from it:

- Chi-square has f*(y) = y + y^2 / 4, and then E_M[y] - (1 - beta) E_S[y] = beta E_E[y]: in Q that
  is E_M[y^2] / 4 - beta E_E[Q]. Row by row, Q is fitted to discount * V(s') + 2 in expert rows and
  + 0 in others; where both meet in one (s, a) to the mean, so the method is reinforcement learning
  with a reward of 2 P(expert | s, a).
- The term in d0 is a constant slope against V, which lowers Q where the policy goes. It is put on
  the rows of S in the same strength, + (1 - beta) E_S[Q]: the rewards become +2 and -2. With an
  absorbing state this is the same problem, scaled and shifted.
- A terminated row goes on in that absorbing state for ever: +-2 / (1 - discount), which also bounds
  |Q|. So ending like the expert is good and ending otherwise is not.
- max over pi is IQL's: V is an expectile of Q, and the actor is regressed with exp(A) weights.

The authors' code does likewise, with reward -2 and absorbing value -200 at a discount of 0.99; it
regresses expert rows to +200 at once. Beta is the share of expert rows in the batch: where they are
few, repeat them in the data.
"""

import dataclasses

import jax
import jax.numpy as jnp

from robo_rl.agents import checks, iql
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import losses, policies
from robo_rl.nn.apply import Batch, Metrics
from robo_rl.nn.normaliser import Normaliser

_NEEDS = ("expert",)

State = iql.State
act = iql.act
policy = iql.policy


@dataclasses.dataclass(frozen=True)
class Config(iql.Common):
    """Hyperparameters."""

    expectile: float = 0.8
    temperature: float = 1.0
    """Inverse temperature of the advantage weights. One step as the expert is worth 4 more than one
    step not as the expert."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.discount == 1.0:
            raise ValueError(
                "recoil.Config.discount must be below 1: Q is bounded by 1 over 1 - it"
            )
        checks.inside("recoil.Config.expectile", self.expectile)
        checks.not_negative("recoil.Config.temperature", self.temperature)


def sign(expert: jax.Array) -> jax.Array:
    """+1 in expert rows, -1 in others."""
    return 2.0 * expert - 1.0


def q_loss(difference: jax.Array, signs: jax.Array) -> jax.Array:
    """u^2 / 4 - sign * u (N, B), for u = q - discount * V(s') (N, B) and signs (B,).

    Its minimum is at u = 2 sign. Up to a constant it is y^2 / 4 -+ Q of the objective.
    """
    return 0.25 * jnp.square(difference) - signs[None] * difference


def absorbed(masks: jax.Array, signs: jax.Array, discount: float) -> jax.Array:
    """What the bootstrap of a terminated row is replaced by (B,), 0 where it is not terminated."""
    return (1.0 - masks) * signs * discount * 2.0 / (1.0 - discount)


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """IQL's state. Raises ValueError where the data do not say which rows are the expert's."""
    checks.needed(
        "recoil",
        example_batch,
        _NEEDS,
        "train it with a second dataset, of expert episodes, as expert (--expert)",
    )
    return iql.init(config, key, example_batch, normaliser)


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """`iql.step` with the critics' loss above. Rows are single steps."""
    if "discounts" in batch:
        raise ValueError("recoil.update: n-step rows have no expert label of their own; use 1 step")
    signs = sign(batch["expert"])
    rewards = absorbed(batch["masks"], signs, config.discount)
    return iql.step(
        config,
        state,
        {**batch, "rewards": rewards},
        temperature=config.temperature,
        value_loss=lambda u: losses.expectile_loss(u, config.expectile),
        critic_loss=lambda u: q_loss(u, signs),
    )


def learned(config: Config, state: State) -> policies.Learned:
    """The policy, which can start another agent. The critics know no reward of a task."""
    whole = iql.learned(config, state)
    return policies.Learned(whole.policy, whole.actor_opt, whole.log_std)


CAPABILITIES = Capabilities(needs=_NEEDS, learned=learned)
