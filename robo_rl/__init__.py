"""robo_rl: from logged data to a safety-filtered arm.

    import robo_rl

    data = robo_rl.open_dataset("hopper/mixed-v0")
    run = robo_rl.train(data, "td3bc", steps=50_000)
    print(robo_rl.evaluate(run))
    policy = robo_rl.load_policy(robo_rl.export(run))
    env = robo_rl.make_env(data)
    observation, _ = env.reset(seed=0)
    action = policy(observation)

Importing this brings neither JAX nor MuJoCo; each name is loaded when it is first used.
"""

import importlib
import pathlib
from typing import TYPE_CHECKING, Any

from robo_rl._version import __version__

# In a source checkout `agents`, `envs`, `hardware` and `launch` lie beside this folder; in a wheel
# they lie inside it.
_here = pathlib.Path(__file__).resolve().parent
if not (_here / "agents").exists():
    __path__.append(str(_here.parent))

if TYPE_CHECKING:
    from robo_rl.data.check import check as check
    from robo_rl.data.episodes import Episode as Episode
    from robo_rl.data.formats import import_dataset as import_dataset
    from robo_rl.data.minari_io import Card as Card
    from robo_rl.data.minari_io import Dataset as Dataset
    from robo_rl.data.minari_io import Provenance as Provenance
    from robo_rl.data.minari_io import RewardLabel as RewardLabel
    from robo_rl.data.minari_io import open_dataset as open_dataset
    from robo_rl.data.minari_io import write_dataset as write_dataset
    from robo_rl.data.report import Report as Report
    from robo_rl.data.spaces import Spaces as Spaces
    from robo_rl.envs.registry import EnvSetting as EnvSetting
    from robo_rl.hardware.runtime.policy import NumpyPolicy as NumpyPolicy
    from robo_rl.workflow.choose import Choice as Choice
    from robo_rl.workflow.choose import choose as choose
    from robo_rl.workflow.deploy import Deployment as Deployment
    from robo_rl.workflow.deploy import deploy as deploy
    from robo_rl.workflow.environment import make_env as make_env
    from robo_rl.workflow.environment import of_task as of_task
    from robo_rl.workflow.evaluate import Evaluation as Evaluation
    from robo_rl.workflow.evaluate import evaluate as evaluate
    from robo_rl.workflow.export import export as export
    from robo_rl.workflow.exported import Exported as Exported
    from robo_rl.workflow.exported import load_policy as load_policy
    from robo_rl.workflow.finetune import finetune as finetune
    from robo_rl.workflow.finetune import learn_online as learn_online
    from robo_rl.workflow.finetune import resume as resume
    from robo_rl.workflow.record import Recorded as Recorded
    from robo_rl.workflow.record import record as record
    from robo_rl.workflow.run import Run as Run
    from robo_rl.workflow.run import load_run as load_run
    from robo_rl.workflow.train import train as train

_HOMES = {
    "robo_rl.data.check": ("check",),
    "robo_rl.data.episodes": ("Episode",),
    "robo_rl.data.formats": ("import_dataset",),
    "robo_rl.data.minari_io": (
        *("Card", "Dataset", "Provenance", "RewardLabel", "open_dataset", "write_dataset"),
    ),
    "robo_rl.data.report": ("Report",),
    "robo_rl.data.spaces": ("Spaces",),
    "robo_rl.envs.registry": ("EnvSetting",),
    "robo_rl.hardware.runtime.policy": ("NumpyPolicy",),
    "robo_rl.workflow.choose": ("Choice", "choose"),
    "robo_rl.workflow.deploy": ("Deployment", "deploy"),
    "robo_rl.workflow.environment": ("make_env", "of_task"),
    "robo_rl.workflow.evaluate": ("Evaluation", "evaluate"),
    "robo_rl.workflow.export": ("export",),
    "robo_rl.workflow.exported": ("Exported", "load_policy"),
    "robo_rl.workflow.finetune": ("finetune", "learn_online", "resume"),
    "robo_rl.workflow.record": ("Recorded", "record"),
    "robo_rl.workflow.run": ("Run", "load_run"),
    "robo_rl.workflow.train": ("train",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "__version__",
    *sorted(_HOME),
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"robo_rl has no {name!r}; it has {', '.join(sorted(_HOME))}")
    from robo_rl.extras import explained

    with explained():
        value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
