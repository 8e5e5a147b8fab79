"""Environments by name: anything that Gymnasium can make, and how a learner sees it.

A setting is all that it takes to make an environment again: an id, keyword arguments and a step
limit. It is stored with runs and exported policies. Packages that register environments are
imported when an id of theirs is asked for; nothing else that a dataset names is ever imported.
"""

import contextlib
import dataclasses
import difflib
import importlib
import importlib.util
import io
import json
import pathlib
import pickle
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec

from robo_rl import extras
from robo_rl.data.spaces import Spaces
from robo_rl.quiet import quiet

PACKAGES = ("robo_rl.envs", "ogbench", "gymnasium_robotics")
"""Imported, where they are installed, to find an id that Gymnasium does not know."""
_ROBOTICS = "gymnasium_robotics"
_NAMES = {"ogbench": "OGBench", _ROBOTICS: "Gymnasium-Robotics"}
_OGBENCH_DATA = re.compile(
    r"(?P<env>.+?)-(?:navigate|stitch|explore|arena|play|noisy)(?P<version>(?:-singletask.*)?-v\d+)"
)
"""Names of its datasets: the kind of the data stands in the middle of the environment's."""
_LIMITED = ("robo_rl.envs.make:make_arm_env",)
"""Entry points whose environments have the step limit of their task."""


class EnvError(ValueError):
    """An environment that cannot be made, or does not fit."""


@dataclasses.dataclass(frozen=True)
class EnvSetting:
    """An environment that can be made again."""

    id: str
    """Gymnasium's, as `Hopper-v5`; `package:ID` imports a package first."""
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """JSON values."""
    max_episode_steps: int | None = None
    """None takes the id's own limit."""
    registered: EnvSpec | None = dataclasses.field(default=None, compare=False, repr=False)
    """What another process has to register first; not stored."""

    def __str__(self) -> str:
        named = [f"{name}={value}" for name, value in self.kwargs.items()]
        if self.max_episode_steps is not None:
            named.append(f"{self.max_episode_steps} steps")
        return f"{self.id} ({', '.join(named)})" if named else self.id

    def to_json(self) -> dict[str, Any]:
        """As stored with runs and policies."""
        return {
            "id": self.id,
            "kwargs": dict(self.kwargs),
            "max_episode_steps": self.max_episode_steps,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "EnvSetting":
        """Read back; runs of version 0.1 stored the arguments of a cube alone."""
        if "id" in stored:
            return cls(stored["id"], dict(stored["kwargs"]), stored.get("max_episode_steps"))
        kwargs = {name: value for name, value in stored.items() if name != "scene"}
        scene = str(stored.get("scene", "single"))
        return cls(f"robo_rl/Cube{scene.capitalize()}-v0", kwargs)

    def with_kwargs(self, **kwargs: Any) -> "EnvSetting":
        """With arguments changed; those that become None are left out."""
        both = {**self.kwargs, **kwargs}
        return dataclasses.replace(self, kwargs={k: v for k, v in both.items() if v is not None})


def setting_of(spec: EnvSpec) -> EnvSetting:
    """The setting of an environment spec, as datasets store one. Its wrappers are not part of it.

    Raises EnvError where its arguments are no JSON values.
    """
    try:
        kwargs = json.loads(json.dumps(dict(spec.kwargs)))
    except TypeError as error:
        raise EnvError(f"environment {spec.id}: its arguments are not JSON values: {error}") from (
            error
        )
    return EnvSetting(spec.id, kwargs, spec.max_episode_steps)


def find(env_id: str) -> EnvSpec:
    """The registered spec of an id. Raises EnvError that lists similar ids, or what to install."""
    module, _, name = env_id.rpartition(":")
    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise EnvError(f"environment {env_id}: cannot import {module}: {error}") from error
    for package in ("", *PACKAGES):
        if package:
            _register(package)
        if name in gymnasium.registry:
            return gymnasium.registry[name]
    near = difflib.get_close_matches(name, list(gymnasium.registry), n=5)
    missing = [p for p in PACKAGES if importlib.util.find_spec(p.split(".")[0]) is None]
    hints = "".join(
        f"; {_NAMES[package]} is not installed (pip install 'robo_rl[{extras.EXTRA[package]}]')"
        for package in missing
    )
    data = _OGBENCH_DATA.search(name)
    if data is not None and data["env"] + data["version"] in gymnasium.registry:
        raise EnvError(
            f"{env_id!r} is a dataset of OGBench; its environment is "
            f"{data['env'] + data['version']!r}"
        )
    raise EnvError(
        f"no environment is called {env_id!r}; similar: {', '.join(near) or 'none'}{hints}. An "
        "environment of your own: module:ID, where importing the module registers it"
    )


def arguments(setting: EnvSetting) -> dict[str, Any]:
    """All keyword arguments of an environment, those that its id brings included."""
    return {**find(setting.id).kwargs, **setting.kwargs}


def check_setting(setting: EnvSetting) -> None:
    """Raise EnvError unless the id is known and its episodes end."""
    spec = find(setting.id)
    if spec.entry_point in _LIMITED or spec.max_episode_steps is not None:
        return
    if setting.max_episode_steps is None:
        raise EnvError(
            f"environment {setting.id} has no step limit; give max_episode_steps "
            "(--max-episode-steps), by which episodes are cut"
        )


def limited(setting: EnvSetting) -> EnvSetting:
    """The setting with the step limit that its id brings, where it names none itself."""
    if setting.max_episode_steps is not None:
        return setting
    return dataclasses.replace(setting, max_episode_steps=find(setting.id).max_episode_steps)


def make(setting: EnvSetting, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment with its step limit, in its own spaces. Raises EnvError.

    OGBench's goal-conditioned environments show their goal: observations become the Dict
    {"observation", "goal"}.
    """
    if setting.registered is not None:
        gymnasium.registry.setdefault(setting.registered.id, setting.registered)
    check_setting(setting)
    options: dict[str, Any] = dict(setting.kwargs)
    if render_mode is not None:
        options["render_mode"] = render_mode
    with quiet():
        try:
            env = gymnasium.make(
                setting.id,
                max_episode_steps=setting.max_episode_steps,
                disable_env_checker=True,
                **options,
            )
            if type(env.unwrapped).__module__.startswith("ogbench"):
                env = QuietReset(env)
        except EnvError:
            raise
        except AssertionError as error:
            raise EnvError(f"environment {setting.id} {_why(setting)}") from error
        except Exception as error:  # other people's code raises anything
            why = extras.advice(error) or str(error)
            if "OpenGL" in why:
                why += "; it draws its observations: start Python with MUJOCO_GL=egl (or osmesa)"
            raise EnvError(f"environment {setting.id} cannot be made: {why}") from error
    return GoalShown(env) if _has_goal(env) else env


def _why(setting: EnvSetting) -> str:
    entry = str(find(setting.id).entry_point)
    if entry.startswith(_ROBOTICS):
        return (
            "of Gymnasium-Robotics does not start under the MuJoCo that is installed: its Fetch, "
            "Hand and Kitchen need `pip install 'mujoco<3.11'`, in an environment of its own"
        )
    return "refuses its arguments: an assertion of its code does not hold"


def _register(package: str) -> None:
    if importlib.util.find_spec(package.split(".")[0]) is None:
        return
    # Farama's packages also print what is new about themselves.
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        module = importlib.import_module(package)
        if package == _ROBOTICS:
            gymnasium.register_envs(module)


def _has_goal(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether this is a goal-conditioned environment of OGBench, whose goal is in `info` only."""
    inner = env.unwrapped
    if not type(inner).__module__.startswith("ogbench"):
        return False
    return getattr(inner, "_reward_task_id", None) is None


class QuietReset(gymnasium.Wrapper[Any, Any, Any, Any]):
    """OGBench's arms make their action space anew at each look and reset, with a warning."""

    def __init__(self, env: gymnasium.Env[Any, Any]):
        super().__init__(env)
        self.action_space = env.action_space
        self.observation_space = env.observation_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        with quiet():
            return self.env.reset(seed=seed, options=options)


class GoalShown(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Shows the goal of an episode, from the `info` of its reset, beside each observation."""

    def __init__(self, env: gymnasium.Env[Any, Any]):
        super().__init__(env)
        inner = env.observation_space
        self.observation_space = gymnasium.spaces.Dict({"observation": inner, "goal": inner})
        self._goal: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's, with the goal."""
        observation, info = self.env.reset(seed=seed, options=options)
        if "goal" not in info:
            raise EnvError(f"{self.env.spec and self.env.spec.id}: reset tells no goal")
        self._goal = info["goal"]
        return self._shown(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's, with the goal."""
        observation, *rest = self.env.step(action)
        return (self._shown(observation), *rest)  # type: ignore[return-value]

    def _shown(self, observation: Any) -> dict[str, Any]:
        return {"observation": observation, "goal": np.asarray(self._goal, observation.dtype)}


class LearnerView(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment as learners see it: `Spaces.read` of observations, actions in [-1, 1].

    `info["success"]` is there where the environment tells one under any of the usual names.
    Rewards are multiplied by `reward_scale`, then `reward_shift` is added.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        spaces: Spaces,
        reward_scale: float = 1.0,
        reward_shift: float = 0.0,
    ):
        super().__init__(env)
        self.spaces = spaces
        self._scale, self._shift = reward_scale, reward_shift
        self.observation_space = spaces.observation_space()
        self.action_space = spaces.action_space()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self.spaces.read(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As the environment's. `info["executed_action"]` is in [-1, 1] too."""
        observation, reward, terminated, truncated, info = self.env.step(
            self.spaces.from_unit(action)
        )
        if "executed_action" in info and not self.spaces.unit:
            info = {**info, "executed_action": self.spaces.to_unit(info["executed_action"])}
        told = succeeded(info)
        if told is not None and "success" not in info:
            info = {**info, "success": told}
        reward = float(reward) * self._scale + self._shift
        return self.spaces.read(observation), reward, terminated, truncated, info


def succeeded(info: Mapping[str, Any]) -> bool | None:
    """Whether a step's `info` says success, under the names that suites use; None: it does not."""
    for name in ("success", "is_success", "goal_achieved"):
        if name in info:
            return bool(info[name])
    return None


def spaces_of(setting: EnvSetting) -> Spaces:
    """The spaces of an environment. Raises EnvError or SpaceError."""
    with contextlib.closing(make(setting)) as env:
        return Spaces.of(env.observation_space, env.action_space, f"environment {setting.id}")


def check_fits(setting: EnvSetting, spaces: Spaces, where: str) -> None:
    """Raise EnvError where a policy of `spaces` does not fit an environment."""
    differences = spaces.differences(spaces_of(setting))
    if differences:
        raise EnvError(
            f"{where} does not fit environment {setting.id}: {'; '.join(differences)}. Name "
            "another with env (--env)"
        )


def only_here(setting: EnvSetting) -> bool:
    """Whether no other process can make the environment: the running script itself defines it."""
    spec = find(setting.id)
    if _module_of(spec) == "__main__":
        return True
    try:
        pickle.dumps(spec)
    except (pickle.PicklingError, AttributeError, TypeError):  # made in a function
        return True
    return False


def _module_of(spec: EnvSpec) -> str:
    entry: Any = spec.entry_point
    return entry.partition(":")[0] if isinstance(entry, str) else str(entry.__module__)


@contextlib.contextmanager
def prepared(setting: EnvSetting) -> Iterator[EnvSetting]:
    """The setting with what is slow about it done here, for all processes that make it meanwhile.

    The scene of an arm is compiled once. What the script has registered goes along.
    """
    spec = find(setting.id)
    if _module_of(spec).partition(".")[0] not in ("gymnasium", "robo_rl", *PACKAGES):
        setting = dataclasses.replace(setting, registered=spec)
    prepare = _PREPARE.get(str(spec.entry_point))
    if prepare is None:
        yield setting
        return
    with tempfile.TemporaryDirectory(prefix="robo_rl-env-") as folder:
        yield prepare(setting, pathlib.Path(folder))


def _compiled(setting: EnvSetting, folder: pathlib.Path) -> EnvSetting:
    from robo_rl.envs.make import task_of  # late: OGBench takes a second
    from robo_rl.hardware.twin.mujoco_device import save_scene

    path = save_scene(task_of(arguments(setting)).scene, folder / "scene.mjb")
    return setting.with_kwargs(scene_path=str(path))


_PREPARE: Mapping[str, Callable[[EnvSetting, pathlib.Path], EnvSetting]] = {
    "robo_rl.envs.make:make_cube_env": _compiled,
    "robo_rl.envs.make:make_arm_env": _compiled,
}
