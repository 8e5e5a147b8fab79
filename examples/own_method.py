"""A method of your own: this file is one, of pure functions over pytrees.

    python examples/own_method.py [FOLDER]

A method is a `Config`, `init`, `update` and `act`, and `policy` if it is to be exported. No base
class, nothing to register. Here it is advantage-weighted regression with one-step advantages: V is
learned by TD(0), and the actor clones the data, most of all what turned out better than V said

    A(s, a) = r + discount * mask * V(s') - V(s),      weight = min(exp(A / temperature), 20)

`mask` is 0 where the episode terminated and 1 where it was only cut.

Because everything is pure and the state a pytree, `jit`, `scan` and `vmap` are yours to put around
it (`by_hand`); or the library's loop does it, with its checks, its metrics and its seeds
(`by_the_loop`). From the command line a method is found by the path of its file:

    robo-rl train pendulum/random-v0 --agent own_method.py --option temperature=0.5
"""

import dataclasses
import os
import pathlib
import sys
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import robo_rl
from robo_rl import agents
from robo_rl.data.spaces import Spaces, vectors
from robo_rl.learn import offline
from robo_rl.nn import optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_params
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity

KEYS = ("observations", "actions", "rewards", "next_observations", "masks")
"""What `update` reads of a batch."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters. Frozen and hashable, so that it can be static under `jit`."""

    actor: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(hidden=(64, 64)))
    value: NetConfig = dataclasses.field(default_factory=lambda: NetConfig(hidden=(64, 64)))
    discount: float = 0.9
    temperature: float = 0.1
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(f"Config.temperature must be > 0, got {self.temperature}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and so all that a checkpoint holds."""

    params: Params  # {"actor", "value"}
    opt: dict[str, optax.OptState]
    normaliser: Normaliser


def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh networks. Of the example only shapes are read."""
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    actor_key, value_key = jax.random.split(key)
    params: Params = {
        "actor": init_params(Actor(config.actor, action.shape[-1]), actor_key, obs),
        "value": init_params(Scalar(config.value), value_key, obs),
    }
    opt = {name: optimise.adam_init(tree) for name, tree in params.items()}
    return State(params, opt, identity(obs.shape[-1]) if normaliser is None else normaliser)


def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of V and one of the actor, on B rows."""
    obs, next_obs = (
        state.normaliser(batch["observations"]),
        state.normaliser(batch["next_observations"]),
    )
    value = Scalar(config.value)
    next_v = apply(value, state.params["value"], next_obs)
    # Computed outside of the loss: the target gets no gradient.
    target = batch["rewards"] + config.discount * batch["masks"] * next_v
    adv = target - apply(value, state.params["value"], obs)
    weight = jnp.minimum(jnp.exp(adv / config.temperature), 20.0)

    def value_loss(params: Params) -> tuple[jax.Array, Metrics]:
        loss = jnp.mean(jnp.square(apply(value, params, obs) - target))
        return loss, {"value_loss": loss, "v": jnp.mean(target)}

    def actor_loss(params: Params) -> tuple[jax.Array, Metrics]:
        error = jnp.square(policies.mean_action(config.actor, params, obs) - batch["actions"])
        loss = jnp.mean(weight * error.mean(axis=-1))
        return loss, {"actor_loss": loss, "weight": jnp.mean(weight)}

    params, opt, metrics = {}, {}, {}
    for name, loss in (("value", value_loss), ("actor", actor_loss)):
        params[name], opt[name], found = optimise.gradient_step(
            loss, state.params[name], state.opt[name], config.learning_rate
        )
        metrics |= found
    return dataclasses.replace(state, params=params, opt=opt), metrics


def act(
    config: Config, state: State, observations: jax.Array, key: jax.Array, explore: bool = False
) -> jax.Array:
    """Actions (..., A) in [-1, 1]."""
    return policies.mean_action(config.actor, state.params["actor"], state.normaliser(observations))


def policy(config: Config, state: State) -> policies.TanhPolicy:
    """The policy as data, which NumPy can compute: what an export is made of."""
    return policies.TanhPolicy(config.actor, state.params["actor"], state.normaliser)


def by_the_loop(rows: dict[str, Any], steps: int, seeds: int) -> State:
    """The library's loop: rows checked, K updates a dispatch, `seeds` runs in one program."""
    method = agents.get(str(pathlib.Path(__file__).resolve()))  # a file, or the name of one here
    loop = offline.OfflineLoop(steps=steps, seeds=seeds)
    return offline.train(method, method.Config(), rows, loop)


def by_hand(rows: dict[str, Any], steps: int, seeds: int) -> State:
    """The same from outside: `scan` over updates, `vmap` over seeds, one `jit` around all."""
    config, batch_size = Config(), 256
    data = {name: jnp.asarray(rows[name], jnp.float32) for name in KEYS}

    def learn(key: jax.Array) -> State:
        init_key, draw_key = jax.random.split(key)
        first = init(config, init_key, data)

        def one(state: State, key: jax.Array) -> tuple[State, None]:
            drawn = jax.random.randint(key, (batch_size,), 0, len(data["rewards"]))
            return update(config, state, {name: data[name][drawn] for name in KEYS})[0], None

        return jax.lax.scan(one, first, jax.random.split(draw_key, steps))[0]

    states: State = jax.jit(jax.vmap(learn))(jax.random.split(jax.random.key(0), seeds))
    return states


def main(folder: pathlib.Path | None = None, episodes: int = 100, steps: int = 2_000) -> None:
    """Both ways on random episodes of Pendulum, two seeds each; the return of each."""
    with tempfile.TemporaryDirectory() as temporary:
        here = pathlib.Path(folder or temporary)
        os.environ["MINARI_DATASETS_PATH"] = str(here / "datasets")
        chance = robo_rl.record(
            "random",
            "pendulum/random-v0",
            env="Pendulum-v1",
            episodes=episodes,
            workers=0,
            overwrite=True,
        )
        print(f"by chance: {chance.mean_return:.0f}")
        data = robo_rl.open_dataset("pendulum/random-v0")
        spaces = Spaces.of(data.observation_space, data.action_space)
        rows = vectors(data.transitions(), spaces, "pendulum")
        rows["rewards"] = 0.1 * np.asarray(rows["rewards"])
        for name, learn in (("by the loop", by_the_loop), ("by hand", by_hand)):
            states = learn(rows, steps, seeds=2)
            returns = [judged(offline.seed_state(states, seed), spaces) for seed in range(2)]
            print(f"{name}: {', '.join(f'{value:.0f}' for value in returns)}")


def judged(state: State, spaces: Spaces, episodes: int = 5) -> float:
    """Mean return in Pendulum, in the environment's own units."""
    env = robo_rl.make_env("Pendulum-v1")
    step = jax.jit(act, static_argnums=0)
    total = 0.0
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        over = False
        while not over:
            action = step(Config(), state, spaces.read(observation), jax.random.key(0))
            observation, reward, terminated, truncated, _ = env.step(spaces.from_unit(action))
            total += float(reward)
            over = terminated or truncated
    env.close()
    return total / episodes


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:2]))
