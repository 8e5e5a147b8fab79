"""Uni-O4 offline (Lei et al., 2024, arXiv:2311.03351): PPO on the data's states.

Two stages, told apart by `State.step`, so that the plain offline loop trains it:

1. For `pretrain_steps` updates: V and Q by IQL, an ensemble of Gaussian behaviour clones that are
   drawn to where another member is better, and an ensemble of dynamics models.
2. Then each member improves on its behaviour policy by PPO's clipped surrogate with the advantages
   Q - V, which rest from now on. Every `evaluate_every` updates, roll-outs through the models
   (AM-Q) judge both: a member that beats its behaviour policy becomes it.

What acts is the behaviour policy with the best score. Unlike the authors' code, a member and its
behaviour policy are judged in the same roll-outs, noise included, and by their mean actions, which
is how they act.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from robo_rl.agents import checks
from robo_rl.learn.checks import validated
from robo_rl.learn.contract import Capabilities
from robo_rl.nn import critics, distributions, dynamics, losses, optimise, policies
from robo_rl.nn.apply import Batch, Metrics, Params, apply, init_ensemble, init_params
from robo_rl.nn.networks import Actor, NetConfig, Scalar
from robo_rl.nn.normaliser import Normaliser, identity
from robo_rl.nn.stages import when

_LOG_RATIO_MAX = 20.0
"""Beyond it, a ratio on a bad action could grow past the largest float."""
_MEDIUM, _WIDE = NetConfig(hidden=(256,) * 3), NetConfig(hidden=(1024,) * 2)
_DEEP = NetConfig(hidden=(200,) * 4, activation="silu")
_COUNTS = ("members", "critics", "models", "evaluate_every", "horizon")
_STEPS = ("pretrain_steps", "policy_steps")
_RATES = ("critic_lr", "clone_lr", "model_lr", "policy_lr")


@dataclasses.dataclass(frozen=True)
class Config:
    """Hyperparameters. A run is `pretrain_steps` + `policy_steps` updates.

    The paper pretrains longer, on batches of 512: clones 400k and critics up to 2M updates.
    """

    actor: NetConfig = _MEDIUM
    value: NetConfig = _MEDIUM
    critic: NetConfig = _WIDE
    model: NetConfig = _DEEP
    members: int = 4
    """Policies, each with a behaviour policy of its own."""
    critics: int = 2
    models: int = 5
    pretrain_steps: int = 10_000
    """Updates of the first stage."""
    policy_steps: int = 10_000
    """Updates over which the policies' learning rate falls to 0, linearly."""
    evaluate_every: int = 100
    """Updates from one evaluation to the next; the first is at the end of the first stage."""
    horizon: int = 20
    """Steps of a roll-out through the models. Long ones drift off the data and mislead."""
    expectile: float = 0.7
    disagreement: float = 0.1
    """"alpha": how much more a row counts for a clone that is not the best one on it."""
    ratio_clip: float = 0.25
    omega: float = 0.7
    """Weight of advantages above 0; that of those below is 1 - omega."""
    discount: float = 0.99
    polyak: float = 0.005
    critic_lr: float = 1e-4
    clone_lr: float = 1e-4
    model_lr: float = 1e-3
    policy_lr: float = 1e-4
    clip_norm: float = 0.5
    """Bound on the norm of each policy's gradient in the second stage; 0 is none."""
    log_std_min: float = -5.0
    log_std_max: float = 2.0

    def __post_init__(self) -> None:
        checks.kinds(self)
        name = checks.owner(self)
        for field in (*_COUNTS, *_STEPS, *_RATES, "ratio_clip"):
            checks.positive(f"{name}.{field}", getattr(self, field))
        for share in ("expectile", "omega"):
            if not 0.0 < getattr(self, share) < 1.0:
                raise ValueError(f"{name}.{share} must be in (0, 1), got {getattr(self, share)}")
        checks.not_negative(f"{name}.disagreement", self.disagreement)
        checks.fraction(f"{name}.discount", self.discount)
        checks.fraction(f"{name}.polyak", self.polyak)
        checks.not_negative(f"{name}.clip_norm", self.clip_norm)
        if not self.log_std_min < self.log_std_max:
            raise ValueError(f"{name}.log_std_min must be below log_std_max")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """All that `update` changes, and the statistics that go with it."""

    params: Params
    """{"actor", "critic", "value", "model"}; all but "value" lead with an ensemble axis."""
    behaviour: Params  # of the actors (M); in the first stage they are the clones as they are
    target_critic: Params
    opt: dict[str, optax.OptState]  # same keys as `params`; the actors have one state each
    score: jax.Array  # (M,) of the behaviour policies, when they were last judged; 0 before
    low: jax.Array  # (O,) least and largest standardised observations of the first stage
    high: jax.Array
    normaliser: Normaliser
    key: jax.Array
    step: jax.Array


def _actor(config: Config, action_dim: int) -> Actor:
    return Actor(config.actor, action_dim, std="shared")


def distribution(config: Config, params: Params, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean in (-1, 1) and log std (..., A) of one policy, a normal that is not squashed."""
    module = _actor(config, params["mean"]["bias"].shape[-1])
    mean, log_std = apply(module, params, obs)
    return jnp.tanh(mean), jnp.clip(log_std, config.log_std_min, config.log_std_max)


def log_probs(config: Config, actors: Params, obs: jax.Array, actions: jax.Array) -> jax.Array:
    """Log-density (M, B) of each policy's own actions (M, B, A) at the same obs (B, O)."""

    def one(params: Params, own: jax.Array) -> jax.Array:
        return distributions.normal_log_prob(own, *distribution(config, params, obs))

    return jax.vmap(one)(actors, actions)


def clone_loss(log_prob: jax.Array, disagreement: float) -> jax.Array:
    """-log pi_i - alpha (log pi_i - max_j log pi_j), (M, B), from log-densities (M, B).

    The others are constants to a member. Where it is the best itself the bonus is 0, elsewhere it
    makes the row count 1 + alpha times.
    """
    # A member is drawn to the best one, which must not move towards it.
    best = jax.lax.stop_gradient(jnp.max(log_prob, axis=0, keepdims=True))
    behind = log_prob - jnp.broadcast_to(best, log_prob.shape)
    return -log_prob - disagreement * jnp.where(behind < 0.0, behind, 0.0)


def weighted_advantage(advantage: jax.Array, omega: float) -> jax.Array:
    """Standardised over the rows (..., B), then times omega above 0 and 1 - omega below."""
    spread = jnp.std(advantage, axis=-1, keepdims=True) + 1e-8
    centred = advantage - jnp.mean(advantage, axis=-1, keepdims=True)
    normal = centred / jnp.broadcast_to(spread, advantage.shape)
    return normal * jnp.where(normal > 0.0, omega, 1.0 - omega)


def policy_loss(
    log_prob: jax.Array, old_log_prob: jax.Array, advantage: jax.Array, clip: float
) -> jax.Array:
    """Sum over the policies of minus the mean clipped surrogate, all (M, B)."""
    log_ratio = jnp.clip(log_prob - old_log_prob, -_LOG_RATIO_MAX, _LOG_RATIO_MAX)
    surrogate = losses.clipped_surrogate(old_log_prob + log_ratio, old_log_prob, advantage, clip)
    return -jnp.sum(jnp.mean(surrogate, axis=1))


@validated
def init(
    config: Config, key: jax.Array, example_batch: Batch, normaliser: Normaliser | None = None
) -> State:
    """Fresh networks, moments and targets."""
    obs, action = example_batch["observations"][:1], example_batch["actions"][:1]
    actor_key, critic_key, value_key, model_key, state_key = jax.random.split(key, 5)
    actor = init_ensemble(_actor(config, action.shape[-1]), actor_key, config.members, obs)
    critic = init_ensemble(Scalar(config.critic), critic_key, config.critics, obs, action)
    shared = {
        "critic": critic,
        "value": init_params(Scalar(config.value), value_key, obs),
        "model": dynamics.init(config.model, model_key, config.models, obs, action),
    }
    return State(
        params={"actor": actor, **shared},
        behaviour=jax.tree.map(jnp.copy, actor),
        target_critic=jax.tree.map(jnp.copy, critic),
        opt={
            **{name: optimise.adam_init(tree) for name, tree in shared.items()},
            "actor": jax.vmap(optimise.adam_init)(actor),
        },
        score=jnp.zeros(config.members),
        low=jnp.zeros(obs.shape[-1]),
        high=jnp.zeros(obs.shape[-1]),
        normaliser=identity(obs.shape[-1]) if normaliser is None else normaliser,
        key=state_key,
        step=jnp.zeros((), jnp.int32),
    )


_FIRST = ("value_loss", "critic_loss", "q", "v", "clone_loss", "model_loss", "model_mse")
_SECOND = ("policy_loss", "advantage", "ratio_off", "std")


@validated
def update(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One update of the stage that `state.step` is in; metrics of the other one are 0."""
    key, noise_key, model_key = jax.random.split(state.key, 3)
    done = state.step + 1 - config.pretrain_steps  # updates of the second stage after this one
    state, pretrain_metrics = when(
        done <= 0,
        functools.partial(_pretrain, config, state, batch),
        (state, dict.fromkeys(_FIRST, jnp.zeros(()))),
    )
    obs = state.normaliser(batch["observations"])
    (actor, actor_opt), policy_metrics = when(
        done > 0,
        functools.partial(_improve, config, state, obs, noise_key, done),
        ((state.params["actor"], state.opt["actor"]), dict.fromkeys(_SECOND, jnp.zeros(()))),
    )
    state = _with(state, "actor", actor, actor_opt)
    behaviour, score, replaced = when(
        (done >= 0) & (done % config.evaluate_every == 0),
        functools.partial(_judge, config, state, obs, model_key),
        (state.behaviour, state.score, jnp.zeros(())),
    )
    metrics = {**pretrain_metrics, **policy_metrics, "score": jnp.max(score), "replaced": replaced}
    new = dataclasses.replace(state, behaviour=behaviour, score=score, key=key, step=state.step + 1)
    return new, metrics


def _pretrain(config: Config, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One step of V, critics, clones and models, on the same rows."""
    rows = batch["actions"].shape[0]
    both = state.normaliser(jnp.concatenate([batch["observations"], batch["next_observations"]]))
    state, critic_metrics = _critic_step(config, state, both, batch)
    state, clone_metrics = _clone_step(config, state, both[:rows], batch["actions"])
    model, opt, model_metrics = optimise.gradient_step(
        lambda params: dynamics.loss(config.model, params, both[:rows], both[rows:], batch),
        state.params["model"],
        state.opt["model"],
        config.model_lr,
    )
    low, high = jnp.min(both, axis=0), jnp.max(both, axis=0)
    new = dataclasses.replace(
        _with(state, "model", model, opt),
        low=jnp.where(state.step == 0, low, jnp.minimum(low, state.low)),
        high=jnp.where(state.step == 0, high, jnp.maximum(high, state.high)),
    )
    return new, {**critic_metrics, **clone_metrics, **model_metrics}


def _with(state: State, name: str, params: Params, opt: optax.OptState) -> State:
    return dataclasses.replace(
        state, params={**state.params, name: params}, opt={**state.opt, name: opt}
    )


def _critic_step(
    config: Config, state: State, both: jax.Array, batch: Batch
) -> tuple[State, Metrics]:
    """IQL without its actor: V, then Q with the new V, then the targets."""
    params, opt, actions = state.params, state.opt, batch["actions"]
    rows = actions.shape[0]
    obs = both[:rows]
    q = critics.q(config.critic, state.target_critic, "min", obs, actions)

    def loss(params: Params) -> tuple[jax.Array, Metrics]:
        v: jax.Array = apply(Scalar(config.value), params, obs)
        value_loss = jnp.mean(losses.expectile_loss(q - v, config.expectile))
        return value_loss, {"value_loss": value_loss, "v": jnp.mean(v)}

    value, value_opt, metrics = optimise.gradient_step(
        loss, params["value"], opt["value"], config.critic_lr
    )
    next_v: jax.Array = apply(Scalar(config.value), value, both[rows:])
    discounts = batch.get("discounts", config.discount)
    target = losses.td_target(batch["rewards"], discounts, batch["masks"], next_v)
    critic, critic_opt, critic_metrics = critics.regress(
        config.critic, params["critic"], opt["critic"], config.critic_lr, target, obs, actions
    )
    new = _with(_with(state, "value", value, value_opt), "critic", critic, critic_opt)
    target_critic = optimise.polyak(critic, state.target_critic, config.polyak)
    return dataclasses.replace(new, target_critic=target_critic), {**metrics, **critic_metrics}


def _clone_step(
    config: Config, state: State, obs: jax.Array, actions: jax.Array
) -> tuple[State, Metrics]:
    """All clones; they are their own behaviour policies. PPO starts with moments of its own."""
    each = jnp.broadcast_to(actions, (config.members, *actions.shape))

    def loss(actors: Params) -> tuple[jax.Array, Metrics]:
        losses = clone_loss(log_probs(config, actors, obs, each), config.disagreement)
        return jnp.sum(jnp.mean(losses, axis=1)), {"clone_loss": jnp.mean(losses)}

    grads, metrics = jax.grad(loss, has_aux=True)(state.params["actor"])
    step = functools.partial(optimise.adam_step, learning_rate=config.clone_lr)
    actor, opt = jax.vmap(step)(state.params["actor"], grads, state.opt["actor"])
    last = state.step + 1 == config.pretrain_steps
    opt = jax.tree.map(lambda leaf: jnp.where(last, jnp.zeros_like(leaf), leaf), opt)
    return dataclasses.replace(_with(state, "actor", actor, opt), behaviour=actor), metrics


def _improve(
    config: Config, state: State, obs: jax.Array, key: jax.Array, count: jax.Array
) -> tuple[tuple[Params, optax.OptState], Metrics]:
    """PPO's update number `count` of all policies, on actions of their behaviour policies."""
    mean, log_std = jax.vmap(lambda params: distribution(config, params, obs))(state.behaviour)
    actions = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)  # (M, B, A)
    old_log_prob = distributions.normal_log_prob(actions, mean, log_std)
    # The critics know the box only; a draw beyond it is carried out at its edge.
    inside = jnp.clip(actions, -1.0, 1.0)
    each_obs = jnp.broadcast_to(obs, (config.members, *obs.shape))
    q = critics.q(config.critic, state.target_critic, "min", each_obs, inside)
    v: jax.Array = apply(Scalar(config.value), state.params["value"], obs)
    advantage = q - jnp.broadcast_to(v, q.shape)
    weighted = weighted_advantage(advantage, config.omega)

    def loss(actors: Params) -> tuple[jax.Array, Metrics]:
        log_prob = log_probs(config, actors, obs, actions)
        total = policy_loss(log_prob, old_log_prob, weighted, config.ratio_clip)
        off = jnp.abs(jnp.exp(log_prob - old_log_prob) - 1.0) > config.ratio_clip
        return total, {"policy_loss": total / config.members, "ratio_off": jnp.mean(off)}

    grads, metrics = jax.grad(loss, has_aux=True)(state.params["actor"])
    rate = optimise.linear(config.policy_lr, count - 1, config.policy_steps)
    step = functools.partial(optimise.adam_step, learning_rate=rate, clip_norm=config.clip_norm)
    stepped = jax.vmap(step)(state.params["actor"], grads, state.opt["actor"])
    std = jnp.mean(jnp.exp(log_std))
    return stepped, {**metrics, "advantage": jnp.mean(advantage), "std": std}


def _judge(
    config: Config, state: State, obs: jax.Array, key: jax.Array
) -> tuple[Params, jax.Array, jax.Array]:
    """Behaviour policies after the replacements, their scores (M,), and how many were replaced."""

    def model(obs: jax.Array, actions: jax.Array, draw: jax.Array) -> tuple[jax.Array, jax.Array]:
        params = state.params["model"]
        following, _, goes_on = dynamics.step(config.model, params, obs, actions, draw)
        # No further than the data went: critics and policies have seen nothing there.
        inside = (jnp.broadcast_to(edge, following.shape) for edge in (state.low, state.high))
        return jnp.clip(following, *inside), goes_on

    q = functools.partial(critics.q, config.critic, state.target_critic, "min")

    def score(params: Params) -> jax.Array:
        def act(obs: jax.Array) -> jax.Array:
            return distribution(config, params, obs)[0]

        return dynamics.am_q(q, act, model, obs, config.horizon, key)

    candidates = jax.tree.map(
        lambda *leaves: jnp.concatenate(leaves), state.params["actor"], state.behaviour
    )
    scores = jax.vmap(score)(candidates).reshape(2, config.members)
    return replace(state.params["actor"], state.behaviour, *scores)


def replace(
    actor: Params, behaviour: Params, score: jax.Array, behaviour_score: jax.Array
) -> tuple[Params, jax.Array, jax.Array]:
    """The better policy of each pair, its score (M,), and how many of the first are better."""
    better = score > behaviour_score  # not where a score is not a number

    def chosen(pick: jax.Array, new: Params, old: Params) -> Params:
        member: Params = jax.tree.map(lambda a, b: jnp.where(pick, a, b), new, old)
        return member

    kept = jnp.where(better, score, behaviour_score)
    return jax.vmap(chosen)(better, actor, behaviour), kept, jnp.sum(better, dtype=jnp.float32)


def best(state: State, members: Params) -> Params:
    """Of what leads with the member axis, that of the best behaviour policy; at first any."""
    picked: Params = jax.tree.map(lambda leaf: leaf[jnp.argmax(state.score)], members)
    return picked


def act(
    config: Config,
    state: State,
    observations: jax.Array,
    key: jax.Array,
    explore: bool = False,
) -> jax.Array:
    """Mean action of the best policy, or with `explore` a clipped sample around it."""
    mean, log_std = distribution(
        config, best(state, state.behaviour), state.normaliser(observations)
    )
    if explore:
        noise = jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        mean = jnp.clip(mean + noise, -1.0, 1.0)
    return mean


def policy(config: Config, state: State) -> policies.TanhPolicy:
    """The deterministic policy as data."""
    return policies.TanhPolicy(config.actor, best(state, state.behaviour), state.normaliser)


def q_values(
    config: Config, state: State, observations: jax.Array, actions: jax.Array
) -> jax.Array:
    """Mean (...) over the critics, at observations as the data have them."""
    obs = state.normaliser(observations)
    return critics.q(config.critic, state.params["critic"], "mean", obs, actions)


def state_values(config: Config, state: State, observations: jax.Array) -> jax.Array:
    """V (...), from which the critics' targets bootstrap."""
    value: jax.Array = apply(
        Scalar(config.value), state.params["value"], state.normaliser(observations)
    )
    return value


def learned(config: Config, state: State) -> policies.Learned:
    """What can start another agent: the policy that acts, V and the critics."""
    return policies.Learned(
        policy=policy(config, state),
        actor_opt=best(state, state.opt["actor"]),
        log_std=best(state, state.behaviour)["log_std"],
        critic_net=config.critic,
        critic=state.params["critic"],
        target_critic=state.target_critic,
        critic_opt=state.opt["critic"],
        value_net=config.value,
        value=state.params["value"],
    )


CAPABILITIES = Capabilities(q_values=q_values, state_values=state_values, learned=learned)
