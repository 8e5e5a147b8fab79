"""Every agent keeps the contract of `robo_rl.learn.contract`."""

import dataclasses
import functools
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl import agents
from robo_rl.agents import AGENTS
from robo_rl.learn.contract import Capabilities, needs
from robo_rl.nn import policies
from robo_rl.nn.apply import apply_ensemble
from robo_rl.nn.encoder import EncoderConfig
from robo_rl.nn.networks import NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser
from robo_rl.nn.observations import is_image
from robo_rl.runs import configs, trees

pytestmark = pytest.mark.usefixtures("quick_compile")

SMALL = NetConfig(hidden=(8, 8))
NORMED = NetConfig(hidden=(8, 8), layer_norm="before")
ONE_LAYER = NetConfig(hidden=(8,))
EYE = EncoderConfig(channels=(4,), blocks=0, features=6)
SEEING = NetConfig(hidden=(8,), encoder=EYE)
CONFIGS = {
    "anchored": agents.anchored.Config(
        actor=SMALL, critic=NORMED, critics=2, anchor_weight=0.1, target_high=1.0
    ),
    "bc": agents.bc.Config(actor=SMALL),
    "bc_gaussian": agents.bc.Config(actor=SMALL, likelihood="gaussian", decay_steps=10),
    "famo2o": agents.famo2o.Config(actor=SMALL, critic=SMALL, balance=SMALL),
    "famo2o_online": agents.famo2o.Config(
        actor=SMALL, critic=SMALL, balance=SMALL, coefficients="balance", std="unit"
    ),
    "fdvl": agents.fdvl.Config(actor=SMALL, critic=SMALL),
    "awac": agents.awac.Config(actor=SMALL, critic=SMALL),
    "calql": agents.calql.Config(actor=SMALL, critic=SMALL, samples=2),
    "cql": agents.cql.Config(actor=SMALL, critic=SMALL, samples=2, utd=2),
    "cql_maze": agents.cql.Config(
        actor=SMALL,
        critic=NORMED,
        critics=4,
        samples=2,
        importance=False,
        max_target_backup=True,
        lagrange=True,
        clip_low=-200.0,
    ),
    "distill": agents.distill.Config(actor=SMALL, decay_steps=10),
    "distill_reverse": agents.distill.Config(actor=SMALL, divergence="reverse"),
    "flowbc": agents.flowbc.Config(flow=SMALL, flow_steps=3, decay_steps=10),
    "fql": agents.fql.Config(flow=SMALL, actor=SMALL, critic=NORMED, flow_steps=3),
    "fql_min": agents.fql.Config(
        flow=SMALL, actor=SMALL, critic=NORMED, flow_steps=3, aggregate="min", normalise_q=True
    ),
    "hnpg": agents.hnpg.Config(
        actor=SMALL, critic=SMALL, iterations=2, critic_steps=2, samples=2, cg_iterations=3
    ),
    "ifql": agents.ifql.Config(flow=SMALL, critic=NORMED, flow_steps=3, samples=4),
    "iql": agents.iql.Config(actor=SMALL, critic=SMALL),
    "iql_ensemble": agents.iql.Config(actor=SMALL, critic=NORMED, critics=4, std="unit"),
    "qc": agents.qc.Config(flow=SMALL, critic=NORMED, flow_steps=3, samples=4),
    "sac": agents.sac.Config(actor=SMALL, critic=NORMED, critics=3, utd=2),
    "sac_min": agents.sac.Config(
        actor=SMALL, critic=NORMED, critics=2, actor_q="min", std="shared", backup_entropy=True
    ),
    "ppo": agents.ppo.Config(actor=SMALL, value=SMALL, minibatch=4, epochs=2),
    "ppo_adopted": agents.ppo.Config(
        actor=NORMED,
        value=NORMED,
        minibatch=8,
        epochs=2,
        value_clip=0.1,
        entropy_weight=0.01,
        reward_scale=0.1,
        decay_steps=10,
    ),
    "rebrac": agents.rebrac.Config(actor=SMALL, critic=NORMED, critics=3, decay_steps=2),
    "residual": agents.residual.Config(base=SMALL, actor=SMALL, critic=NORMED, critics=3, utd=2),
    "recoil": agents.recoil.Config(actor=SMALL, critic=SMALL),
    "xql": agents.xql.Config(actor=SMALL, critic=SMALL),
    "residual_outside": agents.residual.Config(
        base_in_observation=True, actor=SMALL, critic=NORMED, critics=3, utd=2
    ),
    "td3bc": agents.td3bc.Config(actor=SMALL, critic=SMALL),
    "unio4": agents.unio4.Config(
        actor=ONE_LAYER,
        value=ONE_LAYER,
        critic=ONE_LAYER,
        model=ONE_LAYER,
        members=2,
        models=2,
        pretrain_steps=1,
        evaluate_every=1,
        horizon=2,
    ),
    # With images; a case's name says so.
    "fql_pixels": agents.fql.Config(flow=SEEING, actor=SEEING, critic=SEEING, flow_steps=2),
    "rebrac_pixels": agents.rebrac.Config(actor=SEEING, critic=SEEING),
    "sac_pixels": agents.sac.Config(actor=SMALL, critic=SEEING, critics=2),
    "residual_pixels": agents.residual.Config(
        base=SEEING, actor=SMALL, critic=SEEING, critics=2, utd=1
    ),
}
CASES = pytest.mark.parametrize("case", sorted(CONFIGS))


def _raw(tree):
    return trees.flatten(tree)


def test_every_agent_has_a_case():
    assert {case.split("_")[0] for case in CONFIGS} == set(AGENTS)


def test_no_config_inherits_the_settings_of_another_method():
    """What methods share is a base that no method has for its config."""
    kinds = {agent.Config: name for name, agent in AGENTS.items()}
    for kind, name in kinds.items():
        assert not [kinds[parent] for parent in kind.__mro__[1:] if parent in kinds], name


def test_an_unknown_agent_lists_the_known_ones():
    with pytest.raises(ValueError, match=f"known: {', '.join(sorted(AGENTS))}"):
        agents.get("dqn")


@pytest.fixture
def batch(batch, case):
    """With what the agent of the case says that it needs, and nothing more."""
    more = {
        "next_actions": np.roll(batch["actions"], -1, axis=0),
        "returns": np.linspace(-1.0, 1.0, 8, dtype=np.float32),
        "expert": np.repeat(np.float32([1.0, 0.0]), 4),
        "ends": np.array([0, 0, 0, 1, 0, 1, 1, 1], np.float32),
        "offline": np.array([0, 0, 0, 0, 0, 0, 1, 1], np.float32),
        "teacher_actions": batch["actions"][::-1].copy(),
        "teacher_log_std": np.full_like(batch["actions"], -1.0),
    }
    if case.endswith("pixels"):
        images = np.random.default_rng(1).integers(0, 256, (2, 8, 6, 6, 2), np.uint8)
        for name, image in zip(("observations", "next_observations"), images, strict=True):
            batch[name] = {"camera": image, "state": batch[name]}
    return {**batch, **{key: more[key] for key in needs(_agent(case))}}


def _moved(observations, scale, offset=0.0):
    """The vectors among observations scaled and moved; images as they are."""
    return jax.tree.map(lambda x: x if is_image(x) else scale * x + offset, observations)


def _agent(case):
    return AGENTS[case.split("_")[0]]


class Jitted:
    """The functions of one case, compiled once for all tests of a process."""

    def __init__(self, case):
        self.agent, self.config = _agent(case), CONFIGS[case]
        self.traces = 0
        # Not compiled: its operations are those of other cases, compiled already.
        self.init = functools.partial(self.agent.init, self.config)
        self.update = jax.jit(self._counted)
        self.act = jax.jit(functools.partial(self.agent.act, self.config), static_argnums=3)

    def _counted(self, state, rows):
        self.traces += 1
        return self.agent.update(self.config, state, rows)


_compiled = functools.cache(Jitted)


@CASES
def test_update_is_traced_once_and_its_metrics_are_finite_scalars(case, batch):
    jitted = _compiled(case)
    state = jitted.init(jax.random.key(0), batch)
    for _ in range(3):
        state, metrics = jitted.update(state, batch)
    assert jitted.traces == 1  # over all tests of this process
    assert int(state.step) == 3
    assert metrics
    for name, value in metrics.items():
        assert value.shape == (), name
        assert np.isfinite(value), name


@CASES
def test_update_keeps_the_structure_of_the_state(case, batch):
    """So that it can be the carry of a scan, and a checkpoint fits."""
    jitted = _compiled(case)
    state = jitted.init(jax.random.key(0), batch)
    after, _ = jitted.update(state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    before, now = _raw(state), _raw(after)
    assert {k: (v.shape, v.dtype) for k, v in now.items()} == {
        k: (v.shape, v.dtype) for k, v in before.items()
    }


@pytest.mark.parametrize("case", sorted(AGENTS))  # one an agent: it compiles the most
def test_vmapped_seeds_equal_separate_runs(case, batch):
    jitted = _compiled(case)
    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    many = jax.vmap(lambda key: jitted.init(key, batch))(keys)
    update = jax.jit(jax.vmap(lambda state: jitted.agent.update(jitted.config, state, batch)))
    for _ in range(2):
        many, _ = update(many)
    for index in range(3):
        state = jitted.init(jax.random.key(index), batch)
        for _ in range(2):
            state, _ = jitted.update(state, batch)
        together = _raw(jax.tree.map(lambda leaf, i=index: leaf[i], many))
        for name, value in _raw(state).items():
            np.testing.assert_allclose(together[name], value, atol=1e-4, err_msg=name)


@CASES
def test_a_saved_state_goes_on_as_if_nothing_had_happened(case, batch):
    jitted = _compiled(case)
    state, _ = jitted.update(jitted.init(jax.random.key(0), batch), batch)
    restored = trees.unflatten(jitted.init(jax.random.key(9), batch), _raw(state))
    expected, got = (_raw(jitted.update(s, batch)[0]) for s in (state, restored))
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value)


@CASES
@pytest.mark.parametrize("explore", [False, True])
def test_actions_are_in_the_box_for_one_and_for_many_observations(case, explore, batch):
    jitted = _compiled(case)
    state = jitted.init(jax.random.key(0), batch)
    key = jax.random.key(1)
    act = functools.partial(jitted.agent.act, jitted.config, state)  # as in `init`, not compiled
    many = act(_moved(batch["observations"], 10.0), key, explore)
    one = act(jax.tree.map(lambda x: x[0], batch["observations"]), key, explore)
    assert many.shape == (8, 2)
    assert one.shape == (2,)
    assert float(jnp.abs(many).max()) <= 1.0


@CASES
def test_acting_without_exploration_ignores_the_key_unless_the_policy_is_stochastic(case, batch):
    jitted = _compiled(case)
    state = jitted.init(jax.random.key(0), batch)
    first, second = (
        jitted.act(state, batch["observations"], jax.random.key(seed), False) for seed in (1, 2)
    )
    stochastic = isinstance(jitted.agent.policy(jitted.config, state), policies.Stochastic)
    assert np.array_equal(first, second) != stochastic


@CASES
def test_the_policy_as_data_acts_as_the_agent_does(case, batch):
    jitted = _compiled(case)
    state = jitted.init(jax.random.key(0), batch)
    key, obs = jax.random.key(1), batch["observations"]
    got = policies.sample(jitted.agent.policy(jitted.config, state), obs, key)
    np.testing.assert_allclose(got, jitted.act(state, obs, key, False), atol=1e-5)


@CASES
def test_the_normaliser_in_the_state_is_used_to_act_and_to_learn(case, batch):
    """Data moved by 2 x + 5 with the matching statistics is the same problem; where the observation
    ends with a base's action, that stays."""
    jitted = _compiled(case)
    mean, std = np.full(3, 5.0, np.float32), np.full(3, 2.0, np.float32)
    if case == "residual_outside":
        mean[1:], std[1:] = 0.0, 1.0
    statistics = jnp.asarray(mean), jnp.asarray(std)
    if case.endswith("pixels"):
        statistics = tuple({"state": part} for part in statistics)
    shifted = Normaliser(*statistics)
    moved = {**batch}
    for name in ("observations", "next_observations"):
        moved[name] = _moved(batch[name], std, mean)
    plain = jitted.init(jax.random.key(0), batch)
    normed = jitted.init(jax.random.key(0), batch, shifted)
    acts = (
        jitted.act(state, rows["observations"], jax.random.key(1), False)
        for state, rows in ((plain, batch), (normed, moved))
    )
    np.testing.assert_allclose(*acts, atol=1e-5)
    _, expected = jitted.update(plain, batch)
    after, metrics = jitted.update(normed, moved)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after.normaliser.mean, shifted.mean)


@pytest.mark.parametrize("case", sorted(AGENTS))
def test_an_agent_with_critics_says_what_they_think_of_given_actions(case, batch):
    """Which is the mean over the critics, at observations as the data have them. The workflow that
    asks is for offline learning from rewards."""
    jitted = _compiled(case)
    agent, config = jitted.agent, jitted.config
    shifted = Normaliser(jnp.full(3, 5.0, jnp.float32), jnp.full(3, 2.0, jnp.float32))
    state = jitted.init(jax.random.key(0), batch, shifted)
    watched = not {"ends", "expert"} & set(needs(agent))
    params = getattr(state, "params", {}) if watched else {}
    assert (agent.CAPABILITIES.q_values is not None) == ("critic" in params)
    assert (agent.CAPABILITIES.state_values is not None) == ("value" in params)
    if "critic" not in params:
        return

    obs, actions = batch["observations"], batch["actions"]
    own = agent.q_values(config, state, obs, actions)
    each = apply_ensemble(Scalar(config.critic), params["critic"], (obs - 5) / 2, actions)
    value = agent.state_values(config, state, obs) if "value" in params else own
    np.testing.assert_allclose(own, each.mean(axis=0), rtol=1e-4, atol=1e-5)
    assert own.shape == value.shape == (8,)


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_an_agent_declares_the_functions_that_it_has(name):
    """And those only: loops and commands ask the declaration."""
    agent = AGENTS[name]
    for field in dataclasses.fields(Capabilities):
        function = getattr(agent.CAPABILITIES, field.name)
        if field.type not in ("bool", bool) and field.name != "needs":
            assert function is vars(agent).get(field.name), field.name


@CASES
def test_a_batch_without_what_the_agent_needs_is_refused_by_name(case, batch):
    for key in needs(_agent(case)):
        rest = {name: value for name, value in batch.items() if name != key}
        with pytest.raises(ValueError, match=f"init: the batch lacks {key}"):
            _agent(case).init(CONFIGS[case], jax.random.key(0), rest)


@pytest.mark.parametrize("case", sorted(AGENTS))
def test_an_update_by_another_config_or_without_actions_is_refused_by_name(case, batch):
    agent, config = _agent(case), CONFIGS[case]
    state = jax.eval_shape(functools.partial(agent.init, config), jax.random.key(0), batch)
    for config_given in (None, object()):
        with pytest.raises(ValueError, match=f"{case}.update takes the Config of {case}, got"):
            agent.update(config_given, state, batch)
        with pytest.raises(ValueError, match=r"\.init takes the Config of \w+, got"):
            agent.init(config_given, jax.random.key(0), batch)
    bare = {key: value for key, value in batch.items() if key != "actions"}
    with pytest.raises(ValueError, match=f"^{case}"):
        jax.eval_shape(functools.partial(agent.update, config), state, bare)


@pytest.mark.parametrize("name", sorted(AGENTS))
def test_nothing_is_explored_unless_it_is_asked_for(name):
    assert inspect.signature(AGENTS[name].act).parameters["explore"].default is False


@pytest.mark.usefixtures("quick_compile")
@pytest.mark.parametrize("case", ["hnpg", "ppo"])
def test_on_policy_exploration_is_a_normal_around_the_mean_cut_at_the_box(case, batch):
    jitted = _compiled(case)
    state = jitted.init(jax.random.key(0), batch)
    obs, key = jnp.asarray(batch["observations"]), jax.random.key(1)
    noise = np.asarray(jax.random.normal(key, (8, 2)))
    for log_std, std in ((-1.0, np.exp(-1.0)), (-9.0, np.exp(-5.0)), (9.0, np.exp(2.0))):
        actor = {**state.params["actor"], "log_std": jnp.full(2, log_std)}
        wide = dataclasses.replace(state, params={**state.params, "actor": actor})
        mean = np.asarray(jitted.act(wide, obs, key, False))
        expected = np.clip(mean + std * noise, -1.0, 1.0)
        np.testing.assert_allclose(jitted.act(wide, obs, key, True), expected, atol=1e-5)


@pytest.mark.parametrize("config", [*CONFIGS.values(), *(a.Config() for a in AGENTS.values())])
def test_configs_come_back_from_the_file_of_a_run(config):
    text = json.dumps(configs.to_json(config), allow_nan=False)
    assert configs.from_json(type(config), json.loads(text)) == config


@CASES
def test_configs_are_frozen_and_hashable(case):
    config = CONFIGS[case]
    assert hash(config) == hash(dataclasses.replace(config))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.actor = None


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("bc", {"likelihood": "x"}),
        ("bc", {"learning_rate": 0.0}),
        ("bc", {"decay_steps": -1}),
        ("bc", {"weight_decay": -1.0}),
        ("bc", {"log_std_min": 3.0}),
        ("distill", {"divergence": "x"}),
        ("distill", {"teacher_std": 0.0}),
        ("distill", {"teacher_std": 100.0}),
        ("distill", {"learning_rate": 0.0}),
        ("distill", {"decay_steps": -1}),
        ("distill", {"log_std_min": 3.0}),
        ("flowbc", {"flow_steps": 0}),
        ("flowbc", {"learning_rate": 0.0}),
        ("flowbc", {"decay_steps": -1}),
        ("fql", {"critics": 0}),
        ("fql", {"aggregate": "max"}),
        ("fql", {"alpha": -1.0}),
        ("fql", {"flow_steps": 0}),
        ("fql", {"discount": 0.0}),
        ("fql", {"polyak": 2.0}),
        ("fql", {"learning_rate": 0.0}),
        ("ifql", {"critics": 0}),
        ("ifql", {"expectile": 0.0}),
        ("ifql", {"samples": 0}),
        ("ifql", {"flow_steps": 0}),
        ("ifql", {"discount": 2.0}),
        ("ifql", {"polyak": 0.0}),
        ("ifql", {"learning_rate": 0.0}),
        ("qc", {"critics": 0}),
        ("qc", {"samples": 0}),
        ("qc", {"aggregate": "max"}),
        ("qc", {"flow_steps": 0}),
        ("qc", {"discount": 0.0}),
        ("qc", {"polyak": 0.0}),
        ("qc", {"learning_rate": 0.0}),
        ("hnpg", {"initial_log_std": 3.0}),
        ("hnpg", {"offline_weight": -1.0}),
        ("hnpg", {"iterations": 0}),
        ("hnpg", {"critic_steps": 0}),
        ("hnpg", {"critic_lr": 0.0}),
        ("hnpg", {"samples": 0}),
        ("hnpg", {"discount": 0.0}),
        ("hnpg", {"gae_lambda": -0.1}),
        ("hnpg", {"max_kl": 0.0}),
        ("hnpg", {"damping": -1.0}),
        ("hnpg", {"cg_iterations": 0}),
        ("hnpg", {"backtracks": 0}),
        ("ppo", {"initial_log_std": 3.0}),
        ("ppo", {"epochs": 0}),
        ("ppo", {"minibatch": 0}),
        ("ppo", {"clip": 0.0}),
        ("ppo", {"value_clip": -1.0}),
        ("ppo", {"entropy_weight": -1.0}),
        ("ppo", {"clip_norm": -1.0}),
        ("ppo", {"discount": 0.0}),
        ("ppo", {"gae_lambda": 1.5}),
        ("ppo", {"reward_scale": 0.0}),
        ("ppo", {"actor_lr": 0.0}),
        ("ppo", {"value_lr": 0.0}),
        ("ppo", {"decay_steps": -1}),
        ("iql", {"critics": 0}),
        ("iql", {"subset": 3}),
        ("iql", {"expectile": 1.0}),
        ("iql", {"temperature": float("nan")}),
        ("iql", {"weight_clip": 0.0}),
        ("iql", {"std": "x"}),
        ("iql", {"log_std_min": 3.0}),
        ("iql", {"discount": 1.5}),
        ("iql", {"polyak": 0.0}),
        ("iql", {"actor_lr": -1.0}),
        ("iql", {"critic_lr": 0.0}),
        ("iql", {"decay_steps": -1}),
        ("sac", {"critics": 0}),
        ("sac", {"subset": 11}),
        ("sac", {"utd": 0}),
        ("sac", {"actor_q": "max"}),
        ("sac", {"actor_rows": "first"}),
        ("sac", {"std": "none"}),
        ("sac", {"initial_log_std": 3.0}),
        ("sac", {"initial_temperature": 0.0}),
        ("sac", {"target_entropy_per_dim": float("inf")}),
        ("sac", {"bc_weight": -1.0}),
        ("sac", {"discount": 0.0}),
        ("sac", {"polyak": 2.0}),
        ("sac", {"actor_lr": 0.0}),
        ("sac", {"critic_lr": 0.0}),
        ("sac", {"temperature_lr": -1.0}),
        *[
            ("anchored", wrong)
            for wrong in (
                {"critics": 0},
                {"subset": 11},
                {"utd": 0},
                {"anchor_weight": -1.0},
                {"success_weight": -1.0},
                {"exploration_std": -1.0},
                {"noise_clip": -1.0},
                {"target_low": 1.0, "target_high": 0.0},
                {"discount": 0.0},
                {"polyak": 0.0},
                {"actor_lr": 0.0},
                {"critic_lr": 0.0},
                {"clip_norm": -1.0},
                {"weight_decay": -1.0},
            )
        ],
        ("residual", {"critics": 0}),
        ("residual", {"subset": 11}),
        ("residual", {"utd": 0}),
        ("residual", {"scale": 0.0}),
        ("residual", {"exploration_std": -1.0}),
        ("residual", {"noise_clip": -1.0}),
        ("residual", {"discount": 0.0}),
        ("residual", {"polyak": 0.0}),
        ("residual", {"actor_lr": 0.0}),
        ("residual", {"critic_lr": 0.0}),
        ("residual", {"clip_norm": -1.0}),
        ("residual", {"weight_decay": -1.0}),
        ("famo2o", {"low": -1.0}),
        ("famo2o", {"high": 7.0}),
        ("famo2o", {"code_size": 5}),
        ("famo2o", {"coefficients": "x"}),
        ("famo2o", {"expectile": 0.0}),
        ("famo2o", {"initial_temperature": 0.0}),
        ("famo2o", {"temperature_lr": -1.0}),
        ("famo2o", {"target_entropy": float("inf")}),
        ("recoil", {"discount": 1.0}),
        ("recoil", {"expectile": 1.0}),
        ("recoil", {"temperature": -1.0}),
        ("xql", {"beta": 0.0}),
        ("xql", {"z_clip": 0.0}),
        ("xql", {"huber": -1.0}),
        ("xql", {"temperature": -1.0}),
        ("xql", {"critics": 0}),
        ("fdvl", {"divergence": "kl"}),
        ("fdvl", {"lam": 0.5}),
        ("fdvl", {"lam": 1.0, "divergence": "chi_square"}),
        ("fdvl", {"huber": float("inf")}),
        ("fdvl", {"temperature": float("nan")}),
        ("fdvl", {"log_std_min": 3.0}),
        ("td3bc", {"alpha": -1.0}),
        ("td3bc", {"critics": 0}),
        ("td3bc", {"subset": 3}),
        ("td3bc", {"utd": 0}),
        ("td3bc", {"target_noise": -1.0}),
        ("td3bc", {"noise_clip": -1.0}),
        ("td3bc", {"discount": 0.0}),
        ("td3bc", {"polyak": 0.0}),
        ("td3bc", {"actor_lr": 0.0}),
        ("td3bc", {"critic_lr": 0.0}),
        ("unio4", {"members": 0}),
        ("unio4", {"critics": 0}),
        ("unio4", {"models": 0}),
        ("unio4", {"pretrain_steps": 0}),
        ("unio4", {"policy_steps": 0}),
        ("unio4", {"evaluate_every": 0}),
        ("unio4", {"horizon": 0}),
        ("unio4", {"expectile": 1.0}),
        ("unio4", {"disagreement": -1.0}),
        ("unio4", {"ratio_clip": 0.0}),
        ("unio4", {"omega": 0.0}),
        ("unio4", {"discount": 0.0}),
        ("unio4", {"polyak": 2.0}),
        ("unio4", {"critic_lr": 0.0}),
        ("unio4", {"clone_lr": 0.0}),
        ("unio4", {"model_lr": 0.0}),
        ("unio4", {"policy_lr": 0.0}),
        ("unio4", {"clip_norm": -1.0}),
        ("unio4", {"log_std_min": 3.0}),
        ("awac", {"subset": 3}),
        ("awac", {"initial_log_std": 3.0}),
        ("awac", {"discount": 0.0}),
        ("awac", {"polyak": 0.0}),
        ("awac", {"actor_lr": 0.0}),
        ("awac", {"critic_lr": 0.0}),
        ("awac", {"inverse_temperature": -1.0}),
        ("awac", {"weight_clip": 0.0}),
        ("awac", {"critics": 0}),
        ("calql", {"samples": 0}),
        ("cql", {"weight": -1.0}),
        ("cql", {"samples": 0}),
        ("cql", {"clip_low": 1.0, "clip_high": 0.0}),
        ("cql", {"clip_low": 1.0, "clip_high": 1.0}),
        ("cql", {"gap": float("nan")}),
        ("cql", {"multiplier_lr": 0.0}),
        ("cql", {"critics": 0}),
        ("rebrac", {"utd": 0}),
        ("rebrac", {"actor_bc_weight": -1.0}),
        ("rebrac", {"critic_bc_weight": -1.0}),
        ("rebrac", {"decay_steps": -1}),
        ("rebrac", {"decay_to": 1.5}),
    ],
)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(name, wrong):
    with pytest.raises(ValueError, match=f"{name}.Config.{next(iter(wrong))}"):
        AGENTS[name].Config(**wrong)
