"""Agents that read images: which loss trains which encoder, and a task that only eyes can solve."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from robo_rl.agents import AGENTS, anchored, fql, iql, rebrac, residual, sac
from robo_rl.learn.batches import batch_of
from robo_rl.learn.checks import check_observations
from robo_rl.nn.encoder import EncoderConfig, features
from robo_rl.nn.networks import NetConfig
from robo_rl.nn.shift import DRQ, OGBENCH, Shift
from tests.probe_envs import Blob, collect

EYE = EncoderConfig(channels=(4,), blocks=0, features=6)
NET = NetConfig(hidden=(8,), encoder=EYE)
CONFIGS = {
    "anchored": anchored.Config(actor=NET, critic=NET, critics=2, utd=1, shift=Shift(2)),
    "fql": fql.Config(flow=NET, actor=NET, critic=NET, flow_steps=2, shift=Shift(2)),
    "rebrac": rebrac.Config(actor=NET, critic=NET, utd=1, shift=Shift(2)),
    "residual": residual.Config(
        base=NET, actor=NET, critic=NET, critics=2, utd=1, scale=1.0, shift=Shift(2)
    ),
    "sac": sac.Config(actor=NET, critic=NET, critics=2, shift=Shift(2)),
}
ACTOR_ONLY = {  # a setting that only the actor's loss has
    "anchored": {"success_weight": 1.0},
    "fql": {"alpha": 1.0},
    "rebrac": {"actor_bc_weight": 1.0},
    "residual": {"actor_lr": 1e-2},
    "sac": {"bc_weight": 1.0},
}
OTHERS = {  # besides, images stay where they are
    name: dataclasses.replace(config, shift=Shift(0), **ACTOR_ONLY[name])
    for name, config in CONFIGS.items()
}
CASES = pytest.mark.parametrize("name", sorted(CONFIGS))
quick = pytest.mark.usefixtures("quick_compile")


@pytest.fixture
def batch(batch):
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 6, 6, 2), np.uint8)
    for name, image in zip(("observations", "next_observations"), images, strict=True):
        batch[name] = {"camera": image, "state": batch[name]}
    more = {"next_actions": batch["actions"], "succeeded": np.ones(8, np.float32)}
    return {**batch, **more}


@pytest.fixture
def flat(batch):
    """With images of one brightness, which a shift leaves as they are."""
    image = np.full((8, 6, 6, 2), 77, np.uint8)
    names = ("observations", "next_observations")
    return {**batch, **{name: {**batch[name], "camera": image} for name in names}}


@functools.cache
def _jitted(name):
    agent = AGENTS[name]
    return jax.jit(agent.init, static_argnums=0), jax.jit(agent.update, static_argnums=0)


def _stepped(name, batch):
    """The state before an update, after it, and after one with the other config."""
    init, update = _jitted(name)
    before = init(CONFIGS[name], jax.random.key(0), batch)
    after, other = (update(table[name], before, batch)[0] for table in (CONFIGS, OTHERS))
    return before, after, other


def _same(first, second):
    """But for the order of sums, which another program may choose; a step moves by 3e-4."""
    near = functools.partial(np.allclose, rtol=0.0, atol=1e-7)
    return jax.tree.all(jax.tree.map(near, first, second))


def test_the_agents_whose_papers_use_pixels_say_so():
    able = {name for name, agent in AGENTS.items() if agent.CAPABILITIES.images}
    assert able == set(CONFIGS)


def test_an_agent_that_reads_vectors_names_itself_the_image_and_who_could_read_it(batch):
    with pytest.raises(
        ValueError,
        match=r"iql reads one vector .* camera \(an image\), state \(a vector\); .*: "
        "anchored, fql, rebrac, residual, sac",
    ):
        check_observations(iql, batch["observations"])
    for name in CONFIGS:
        check_observations(AGENTS[name], batch["observations"])


def test_shifts_are_those_of_the_methods():
    assert {name: agent.Config().shift for name, agent in AGENTS.items() if name in CONFIGS} == {
        "anchored": DRQ,
        "fql": OGBENCH,
        "rebrac": OGBENCH,
        "residual": DRQ,
        "sac": DRQ,
    }
    assert (Shift(4), Shift(3, probability=0.5, paired=True)) == (DRQ, OGBENCH)


@quick
@CASES
def test_the_critics_loss_trains_the_critics_encoder_and_the_actors_loss_does_not(name, flat):
    before, after, other = (state.params for state in _stepped(name, flat))
    assert not _same(before["critic"]["encoder"], after["critic"]["encoder"])
    assert _same(after["critic"], other["critic"])
    assert not _same(after["actor"], other["actor"])
    own = name in ("fql", "rebrac")
    assert ("encoder" in after["actor"]) == own
    if own:
        assert not _same(before["actor"]["encoder"], after["actor"]["encoder"])
        assert not _same(after["actor"]["encoder"], other["actor"]["encoder"])


@quick
@CASES
def test_images_are_shifted_before_they_are_learned_from(name, batch):
    """By the test above, nothing else of the other config reaches the critics."""
    _, after, other = (state.params["critic"] for state in _stepped(name, batch))
    assert not _same(after, other)


@quick
def test_fqls_flow_clones_with_an_encoder_that_no_other_loss_moves(flat):
    before, after, _ = (state.params["flow"] for state in _stepped("fql", flat))
    other = _stepped("fql", {**flat, "rewards": flat["rewards"] + 1.0})[-1].params["flow"]
    assert not _same(before["encoder"], after["encoder"])
    assert _same(after, other)


@quick
@pytest.mark.parametrize("name", ["residual", "sac"])
def test_the_policy_reads_by_the_encoder_that_the_critics_have_now(name, flat):
    before, after, _ = _stepped(name, flat)
    mixed = dataclasses.replace(before, params={**before.params, "critic": after.params["critic"]})
    policies = [AGENTS[name].policy(CONFIGS[name], state) for state in (before, mixed)]
    lent = [p.correction if name == "residual" else p for p in policies]
    assert _same(lent[1].params["encoder"], after.params["critic"]["encoder"])
    assert not np.array_equal(*(_seen(p, flat["observations"]) for p in lent))


def _seen(policy, observations):
    return features(policy.net.encoder, policy.params, policy.normaliser(observations))


@quick
@pytest.mark.parametrize("name", ["anchored", "residual"])
def test_the_base_keeps_the_encoder_that_it_was_learned_with(name, batch):
    agent = AGENTS[name]
    offline = _jitted("rebrac")[0](CONFIGS["rebrac"], jax.random.key(3), batch)
    learned = rebrac.learned(CONFIGS["rebrac"], offline)
    config = agent.adopt(CONFIGS[name], learned)
    state = agent.warm_start(config, jax.random.key(0), learned, batch)
    key, obs = jax.random.key(1), batch["observations"]
    np.testing.assert_allclose(
        agent.act(config, state, obs, key),
        rebrac.act(CONFIGS["rebrac"], offline, obs, key),
        atol=1e-6,
    )
    assert _same(state.params["critic"], learned.critic)
    assert _same(state.base["encoder"], learned.policy.params["encoder"])
    assert "encoder" not in state.params["actor"]
    after = _jitted(name)[1](config, state, batch)[0]
    assert _same(after.base, state.base)
    assert not _same(after.params["critic"]["encoder"], state.params["critic"]["encoder"])


@quick
def test_an_actor_with_an_encoder_of_its_own_cannot_start_sac(batch):
    init, _ = _jitted("rebrac")
    learned = rebrac.learned(CONFIGS["rebrac"], init(CONFIGS["rebrac"], jax.random.key(3), batch))
    config = sac.adopt(CONFIGS["sac"], learned)
    with pytest.raises(ValueError, match=r"encoder of its own.*rlpd.*residual"):
        sac.warm_start(config, jax.random.key(0), learned, batch)


SIGHTED = NetConfig(hidden=(32,), encoder=EncoderConfig((4,), blocks=0, features=16))
STILL = {"shift": Shift(0)}  # the bar's place is the task
FAST = {"actor_lr": 3e-3, "critic_lr": 3e-3, **STILL}
SOLVERS = {
    "fql": fql.Config(
        flow=SIGHTED,
        actor=SIGHTED,
        critic=SIGHTED,
        alpha=0.03,
        normalise_q=True,
        flow_steps=1,
        learning_rate=3e-3,
        **STILL,
    ),
    "rebrac": rebrac.Config(
        actor=SIGHTED, critic=SIGHTED, utd=1, actor_bc_weight=0.0, critic_bc_weight=0.0, **FAST
    ),
    "residual": residual.Config(
        base=SIGHTED, actor=SIGHTED, critic=SIGHTED, critics=2, utd=1, scale=1.0, **FAST
    ),
    "sac": sac.Config(
        actor=SIGHTED,
        critic=SIGHTED,
        critics=2,
        initial_temperature=0.01,
        target_entropy_per_dim=-3.0,
        **FAST,
    ),
}


@functools.cache
def _blobs():
    data = collect(Blob(), 512)
    return batch_of({**data, "next_actions": data["actions"]})


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _run(name, config, steps, batch):
    agent = AGENTS[name]
    state = agent.init(config, jax.random.key(0), batch)
    return jax.lax.scan(lambda c, _: agent.update(config, c, batch), state, None, length=steps)[0]


@quick
@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_a_task_that_only_the_image_tells_is_solved_by_the_image(name):
    """Uniform actions, reward -(a - x)^2. With another row's image the policy is lost, with
    another row's vector it is not."""
    agent, config = AGENTS[name], SOLVERS[name]
    state = _run(name, config, 200, _blobs())
    seen = collect(Blob(), 64, seed=1)["observations"]
    x = (np.argmax(seen["image"][:, 0, :, 0], axis=1) - 7.5) / 7.5
    act = jax.jit(lambda obs: agent.act(config, state, obs, jax.random.key(0)))

    def error(**changed):
        return np.mean(np.abs(np.asarray(act({**seen, **changed}))[:, 0] - x))

    assert error() < 0.2
    assert error(state=np.roll(seen["state"], 1, axis=0)) < 0.25
    assert error(image=np.roll(seen["image"], 1, axis=0)) > 0.35
