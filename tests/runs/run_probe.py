"""A small offline or online run in a directory, for a test that kills it: KIND PATH [resume]."""

import sys

import jax

from robo_rl.agents import iql, sac
from robo_rl.learn import offline, online
from robo_rl.learn.batches import batch_of
from robo_rl.learn.offline import OfflineLoop
from robo_rl.learn.recipes import Recipe
from robo_rl.nn.networks import NetConfig
from robo_rl.runs import sessions
from robo_rl.runs.directory import RunDirectory
from tests.probe_envs import Reach, collect, reach_expert

SMALL = NetConfig(hidden=(8, 8))
OFFLINE = OfflineLoop(steps=600, batch_size=16, log_every=5, checkpoint_every=20)
ONLINE = online.OnlineLoop(env_steps=400, capacity=150, log_every=10, checkpoint_every=25)
RECIPE = Recipe(offline_fraction=0.5, warmup_steps=30, batch_size=8, utd=2, n_step=2)


def offline_in(directory, config, data, loop, *, resume=False, evaluate=None, **session):
    """Train iql in a run directory, fresh or resumed."""
    with sessions.Session(directory, **session) as monitor:
        template = offline.initial_state(iql, config, data, loop) if resume else None
        start = monitor.newest(template) if resume else None
        return offline.train(
            iql, config, data, loop, monitor=monitor, evaluate=evaluate, start=start
        )


def run(kind: str, path: str, resume: bool) -> None:
    """Start or resume."""
    data = collect(Reach(), 30, reach_expert, noise=0.3)
    directory = RunDirectory.open(path) if resume else RunDirectory.create(path, {"kind": kind})
    if kind == "offline":
        config = iql.Config(actor=SMALL, critic=SMALL)
        offline_in(directory, config, data, OFFLINE, resume=resume, data_ids=("probe",))
        return
    config = RECIPE.configure(sac.Config(actor=SMALL, critic=SMALL, critics=3))
    example = {key: value[:1] for key, value in batch_of(data).items()}
    state = jax.jit(sac.init, static_argnums=0)(config, jax.random.key(0), example)
    with sessions.Session(directory) as session:
        found = session.newest(sessions.online_template(state)) if resume else None
        online.finetune(
            sac,
            config,
            Reach(),
            RECIPE,
            ONLINE,
            state,
            offline=data,
            monitor=session,
            snapshot=None if found is None else found[1],
        )


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3:] == ["resume"])
