import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robo_rl.nn import critics, flow, optimise, policies
from robo_rl.nn.apply import apply, init_ensemble
from robo_rl.nn.networks import NetConfig, Scalar
from robo_rl.nn.normaliser import identity

PAIR = NetConfig(hidden=(2,))


def params(kernel, out, bias):
    """A velocity network with two relu units: kernel (3, 2), out (2, 1), bias (1,)."""
    arrays = {
        "trunk": {"Dense_0": {"kernel": kernel, "bias": [0.0, 0.0]}},
        "mean": {"kernel": out, "bias": bias},
    }
    return jax.tree.map(
        lambda x: jnp.asarray(x, jnp.float32), arrays, is_leaf=lambda x: isinstance(x, list)
    )


# Inputs are (observation, x, t), one number each.
CONSTANT = params([[0.0, 0.0]] * 3, [[0.0], [0.0]], [0.5])
TIME = params([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [[1.0], [0.0]], [0.0])
INWARDS = params([[0.0, 0.0], [1.0, -1.0], [0.0, 0.0]], [[-1.0], [1.0]], [0.0])  # v = -x
OBS = jnp.zeros((2, 1))


def test_matching_loss_by_hand():
    """v = 0.5 everywhere; a - noise is 1 and -0.5: (0.25 + 1) / 2."""
    actions, noise = jnp.array([[0.6], [0.2]]), jnp.array([[-0.4], [0.7]])
    got = flow.matching_loss(PAIR, CONSTANT, OBS, actions, noise, jnp.zeros((2, 1)))
    assert float(got) == pytest.approx(0.625)


def test_matching_loss_looks_at_the_point_between_noise_and_action():
    """v = -x at x_t = 0.75 * noise + 0.25 * action, against action - noise."""
    actions, noise = jnp.array([[0.4], [0.8]]), jnp.array([[-0.4], [0.0]])
    got = flow.matching_loss(PAIR, INWARDS, OBS, actions, noise, jnp.full((2, 1), 0.25))
    # x_t: -0.2 and 0.2, so v: 0.2 and -0.2, against 0.8 and 0.8.
    assert float(got) == pytest.approx((0.36 + 1.0) / 2, rel=1e-6)
    timed = flow.matching_loss(PAIR, TIME, OBS, actions, noise, jnp.full((2, 1), 0.25))
    assert float(timed) == pytest.approx((0.8 - 0.25) ** 2, rel=1e-6)


def test_the_loss_is_a_mean_over_dimensions():
    """A 2-d action with unit error in each dimension: 1, not 2."""
    net = NetConfig(hidden=(2,))
    zeros = jax.tree.map(jnp.zeros_like, flow.init(net, jax.random.key(0), OBS, jnp.zeros((2, 2))))
    got = flow.matching_loss(
        net, zeros, OBS, jnp.ones((2, 2)), jnp.zeros((2, 2)), jnp.zeros((2, 1))
    )
    assert float(got) == 1.0


@pytest.mark.parametrize(
    ("velocity", "steps", "expected"),
    [
        (CONSTANT, 10, [0.7, 0.1]),
        (TIME, 4, [0.2 + 0.375, -0.4 + 0.375]),  # (0 + 1 + 2 + 3) / 4 / 4
        (INWARDS, 10, [0.2 * 0.9**10, -0.4 * 0.9**10]),
    ],
    ids=["constant", "time", "inwards"],
)
def test_euler_steps_by_hand(velocity, steps, expected):
    got = flow.integrate(PAIR, velocity, OBS, jnp.array([[0.2], [-0.4]]), steps)
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-5)


def test_only_the_end_of_the_path_is_clipped():
    """From 2 inwards with ten steps: 2 * 0.9^10 = 0.697; clipping the start would give 0.349."""
    got = flow.integrate(PAIR, INWARDS, OBS, jnp.array([[2.0], [4.0]]), 10)
    np.testing.assert_allclose(got[:, 0], [2.0 * 0.9**10, 1.0], rtol=1e-5)


def test_a_bc_step_moves_the_network_towards_the_data():
    """The noise's mean is 0, so the best constant velocity at x = 0 is the action."""
    net = NetConfig(hidden=(8,))
    actions = jnp.full((64, 1), 0.5)
    obs = jnp.zeros((64, 1))
    tree = flow.init(net, jax.random.key(0), obs, actions)
    state = optimise.adam_init(tree)
    step = jax.jit(lambda t, s, k: flow.bc_step(net, t, s, 1e-2, k, obs, actions))
    first = None
    for number in range(200):
        tree, state, metrics = step(tree, state, jax.random.key(number))
        first = metrics["flow_loss"] if first is None else first
    assert float(metrics["flow_loss"]) < 0.5 * float(first)


def test_the_best_candidate_is_taken_row_by_row():
    actions = jnp.arange(12.0).reshape(2, 3, 2)
    scores = jnp.array([[0.0, 5.0, 1.0], [2.0, -1.0, 0.0]])
    np.testing.assert_array_equal(flow.best(actions, scores), [[2.0, 3.0], [6.0, 7.0]])


def test_candidates_come_from_their_own_noise_and_are_valued_at_their_observation():
    net = NetConfig(hidden=(8,))
    critic = init_ensemble(Scalar(net), jax.random.key(0), 2, OBS, OBS)
    obs = jnp.array([[0.3], [-0.8]])
    noise = jnp.array([[[0.1], [0.2], [0.3]], [[-0.1], [-0.2], [-0.3]]])
    actions, scores = flow.candidates(PAIR, CONSTANT, net, critic, "min", obs, noise, 10)
    np.testing.assert_allclose(actions, noise + 0.5, rtol=1e-5)
    for row in range(2):
        for sample in range(3):
            each = [
                apply(
                    Scalar(net),
                    jax.tree.map(lambda x, m=member: x[m], critic),
                    obs[row],
                    actions[row, sample],
                )
                for member in range(2)
            ]
            assert float(scores[row, sample]) == pytest.approx(float(min(each)), rel=1e-4)


def test_a_critic_ensemble_is_read_by_mean_or_minimum_and_moved_to_its_target():
    net = NetConfig(hidden=(8,))
    inputs = jnp.array([[0.3], [-0.8]])
    tree = init_ensemble(Scalar(net), jax.random.key(0), 2, inputs)
    each = np.stack(
        [apply(Scalar(net), jax.tree.map(lambda x, m=m: x[m], tree), inputs) for m in range(2)]
    )
    np.testing.assert_allclose(critics.q(net, tree, "mean", inputs), each.mean(0), rtol=1e-5)
    np.testing.assert_allclose(critics.q(net, tree, "min", inputs), each.min(0), rtol=1e-5)
    target = jnp.array([1.0, -2.0])
    _, _, metrics = critics.regress(net, tree, optimise.adam_init(tree), 1e-3, target, inputs)
    assert float(metrics["critic_loss"]) == pytest.approx(
        np.mean((each - np.asarray(target)) ** 2), rel=1e-5
    )
    assert float(metrics["q"]) == pytest.approx(each.mean(), rel=1e-5)


def test_a_stochastic_policy_needs_noise_of_its_own_shape():
    flow_policy = policies.FlowPolicy(PAIR, CONSTANT, identity(1), 10)
    choice = policies.BestOfNPolicy(flow_policy, PAIR, {}, "mean", 5)
    key = jax.random.key(0)
    assert policies.noise(flow_policy, key, (7,)).shape == (7, 1)
    assert policies.noise(choice, key, (7,)).shape == (7, 5, 1)
    assert policies.noise(policies.TanhPolicy(PAIR, CONSTANT, identity(1)), key, (7,)) is None
    with pytest.raises(ValueError, match="FlowPolicy needs noise"):
        policies.act(flow_policy, OBS)
