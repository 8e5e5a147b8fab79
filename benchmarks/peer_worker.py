"""A peer's side of `benchmarks.peers`, in an environment of its own: it pins other packages.

    python peer_worker.py d3rlpy DATA.npz
    python peer_worker.py unifloral DATA.npz CHECKOUT

Answers each line of JSON with one: {"do": "train", "method", "updates", "seed"} with the seconds
that so many updates of a fresh learner took, {"do": "time", "method", "updates"} with those of
further ones, which compile nothing, {"do": "act", "observation"} with the action of what was
trained last. Methods are trained with the peer's own settings and defaults.
"""

import contextlib
import importlib.util
import json
import os
import pathlib
import sys
import time
import types
from typing import Any

import numpy as np

SCRIPTS = {"iql": "iql", "td3bc": "td3_bc", "rebrac": "rebrac"}


class D3rlpy:
    """Its own encoder is 2x256 with ReLU, its own critics are two, its scalers are asked for."""

    def __init__(self, arrays: Any):
        import d3rlpy

        self._library = d3rlpy
        self._learner: Any = None
        self._made: dict[str, Any] = {}
        self._data = d3rlpy.dataset.MDPDataset(
            arrays["observations"],
            arrays["actions"],
            arrays["rewards"],
            arrays["terminated"].astype(np.float32),
            timeouts=(arrays["ends"] & ~arrays["terminated"]).astype(np.float32),
        )

    def train(self, method: str, updates: int, seed: int, settings: dict[str, Any]) -> None:
        """A fresh learner, after so many updates."""
        self._library.seed(seed)
        algorithms = self._library.algos
        kinds = {
            "iql": algorithms.IQLConfig,
            "td3bc": algorithms.TD3PlusBCConfig,
            "rebrac": algorithms.ReBRACConfig,
        }
        scaler = (
            self._library.preprocessing.StandardObservationScaler()
            if settings.pop("standardise")
            else None
        )
        if method == "rebrac":
            settings |= self._three_layers()
        config = kinds[method](observation_scaler=scaler, **settings)
        self._learner = self._made[method] = config.create(device="cpu:0")
        if scaler is not None:
            scaler.fit_with_trajectory_slicer(self._data.episodes, self._slicer())
        self._learner.build_with_dataset(self._data)
        self.more(method, updates)

    def more(self, method: str, updates: int) -> None:
        """Further updates, rows drawn as its own `fit` draws them."""
        learner = self._made[method]
        for _ in range(updates):
            learner.update(self._data.sample_transition_batch(learner.config.batch_size))

    def act(self, observation: np.ndarray) -> np.ndarray:
        """Its best action (A,)."""
        action: np.ndarray = self._learner.predict(observation[None])[0]
        return action

    def _three_layers(self) -> dict[str, Any]:
        """ReBRAC's networks, which are not d3rlpy's default."""
        encoder = self._library.models.VectorEncoderFactory
        return {
            "actor_encoder_factory": encoder([256] * 3),
            "critic_encoder_factory": encoder([256] * 3, use_layer_norm=True),
        }

    def _slicer(self) -> Any:
        return self._library.dataset.BasicTrajectorySlicer()


class Unifloral:
    """Its scripts, one a method, without the environments and the logger that they import."""

    def __init__(self, arrays: Any, checkout: str):
        self._checkout = pathlib.Path(checkout)
        self._arrays = arrays
        self._made: dict[str, Any] = {}
        self._state: Any = None
        self._apply: Any = None
        for name in ("d4rl", "gym", "wandb"):
            sys.modules[name] = types.ModuleType(name)

    def train(self, method: str, updates: int, seed: int, settings: dict[str, Any]) -> None:
        """A fresh learner, after so many updates."""
        import jax
        import jax.numpy as jnp

        script = self._script(method)
        # Its schedule would end with the updates that are asked for.
        args = script.Args(seed=seed, **{"num_updates": updates, **settings})
        names = {"obs": "observations", "action": "actions", "reward": "rewards"}
        names |= {"next_obs": "next_observations", "done": "terminated"}
        fields = {
            field: jnp.asarray(self._arrays[name], jnp.float32) for field, name in names.items()
        }
        if "next_action" in script.Transition._fields:
            fields["next_action"] = jnp.roll(fields["action"], -1, axis=0)
        data = script.Transition(**fields)
        width = data.action.shape[1]
        scale = (data.obs.mean(axis=0), data.obs.std(axis=0))
        extra = (args.actor_ln, args.norm_obs) if method == "rebrac" else ()
        of_critic = (args.critic_ln, args.norm_obs) if method == "rebrac" else ()
        kind = script.TanhGaussianActor if method == "iql" else script.DeterministicTanhActor
        nets = {"actor": kind(width, *scale, *extra)}
        nets["dual_q"] = script.DualQNetwork(*scale, *of_critic)
        if method == "iql":
            nets["value"] = script.StateValueFunction(*scale)
        key = jax.random.PRNGKey(seed)
        inputs = {"dual_q": [data.obs[0], data.action[0]]}

        def fresh(field: str) -> Any:
            name = field.removesuffix("_target")
            part = jax.random.fold_in(key, sorted(nets).index(name))
            return script.create_train_state(
                args, part, nets[name], inputs.get(name, [data.obs[0]])
            )

        state = script.AgentTrainState(**{f: fresh(f) for f in script.AgentTrainState._fields})
        step = script.make_train_step(args, *(net.apply for net in nets.values()), data)
        self._made[method] = [step, (key, state)]
        self.more(method, updates)
        options = {"eval": True} if method == "iql" else {}

        @jax.jit
        def mean(params: Any, observation: Any) -> Any:
            return nets["actor"].apply(params, observation, **options).sample(seed=key)

        self._apply, self._state = mean, self._made[method][1][1]

    def more(self, method: str, updates: int) -> None:
        """Further updates, one program for each so many."""
        import jax

        step, carry = self._made[method]
        carry, _ = jax.lax.scan(step, carry, None, updates)
        self._made[method][1] = jax.block_until_ready(carry)

    def act(self, observation: np.ndarray) -> np.ndarray:
        """The mean action (A,)."""
        return np.asarray(self._apply(self._state.actor.params, observation.astype(np.float32)))

    def _script(self, method: str) -> Any:
        path = self._checkout / "algorithms" / f"{SCRIPTS[method]}.py"
        flags = os.environ.get("XLA_FLAGS", "")
        spec = importlib.util.spec_from_file_location(f"unifloral_{method}", path)
        assert spec is not None
        assert spec.loader is not None
        script = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = script
        spec.loader.exec_module(script)
        os.environ["XLA_FLAGS"] = flags  # the script has set some of a GPU's
        return script


def main() -> None:
    """Serve until the input ends."""
    name, data, *others = sys.argv[1:]
    arrays = dict(np.load(data))
    peer: Any = D3rlpy(arrays) if name == "d3rlpy" else Unifloral(arrays, *others)
    print(json.dumps({"ready": name}), file=sys.__stdout__, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        start = time.perf_counter()
        answer: dict[str, Any] = {}
        if asked["do"] == "train":
            peer.train(asked["method"], asked["updates"], asked["seed"], asked["settings"])
        elif asked["do"] == "time":
            peer.more(asked["method"], asked["updates"])
        else:
            answer["action"] = peer.act(np.array(asked["observation"])).astype(float).tolist()
        answer["seconds"] = time.perf_counter() - start
        print(json.dumps(answer), file=sys.__stdout__, flush=True)


if __name__ == "__main__":
    sys.stdout = sys.stderr  # a log is not an answer
    with contextlib.suppress(KeyboardInterrupt):
        main()
