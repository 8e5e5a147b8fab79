"""Finetuning methods as data: which agent, which rows, how many frozen steps, what starts fresh."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from robo_rl.fields import check_fields
from robo_rl.learn.contract import has_setting, setting

STARTS = ("fresh", "learned", "continued")
WARMUP_ACTIONS = ("policy", "uniform")
TEACHER_TURNS = ("episode", "step")
_OF_REPLAY = (
    "seed_buffer_with_offline",
    "warmup_actions",
    "noise_std",
    "wait_for_episode",
    "critic_only_updates",
    "batch_size",
    "utd",
    "update_every",
    "n_step",
    "chunk",
)
"""Fields that have no meaning where nothing is replayed."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """One way through the online loop. Steps are environment steps unless they say otherwise."""

    about: str = ""
    """What it is, and whose."""
    agent: str = "sac"
    """Empty: the agent of the run that the recipe continues."""
    start: str = "fresh"
    """"fresh": a new agent. "learned": `warm_start` from an offline agent, of any kind that hands
    on what it has learned. "continued": the offline agent itself, with its own update."""
    reset: tuple[str, ...] = ()
    """Of what was learned, that which starts fresh: "actor", "critic", "optimiser"."""
    offline_fraction: float = 0.0
    """Share of every slice of a batch that comes from the offline data; 0.5 is symmetric."""
    seed_buffer_with_offline: bool = False
    """Put the offline data into the replay buffer before the first step."""
    warmup_steps: int = 5_000
    """Collected with the frozen first policy, before the first update."""
    warmup_actions: str = "policy"
    """"policy" explores with the first policy, "uniform" draws from the whole action box."""
    noise_std: float = 0.0
    """Spread of noise that the loop adds to the policy's deterministic action, in the warm-up too;
    0 leaves exploration to the agent."""
    noise_smoothing: float = 0.0
    """Correlation of that noise from one step to the next; 1 is one constant push an episode."""
    noise_varied: bool = False
    """Scale each episode's noise by a draw from U(0, 2)."""
    wait_for_episode: bool = False
    """No update before the first episode has ended: until then its rows have no return, and would
    be all that the online share of a batch is drawn from."""
    critic_only_updates: int = 0
    """Updates in one go right after the warm-up that leave the actor alone."""
    batch_size: int = 256
    """Rows of one critic step."""
    utd: int = 1
    """Critic steps an update."""
    update_every: int = 1
    """Environment steps an update."""
    rollout: int = 0
    """Above 0 there is no replay: every so many steps one update gets exactly those, in the order
    of time, and they are forgotten. Environments side by side have equal shares; where the wait for
    a checkpoint made them unequal, fewer rows than there are environments are left out once.
    `offline_fraction` is then the share of the offline rows that stand behind them, and fields that
    speak of replay keep their defaults."""
    n_step: int = 1
    chunk: int = 1
    """H, the length of the action chunks that the agent learns and the loop plays open loop."""
    teacher_share: float = 0.0
    """Chance that the teacher acts in place of the policy: DAgger's beta, at the first step."""
    teacher_share_steps: int = 0
    """Steps over which that chance falls linearly to 0; 0 keeps it."""
    teacher_turns: str = "episode"
    """For what it is drawn anew: "episode" or "step"."""
    options: tuple[tuple[str, Any], ...] = ()
    """Fields of the agent's config that the method fixes, as (name, value)."""

    def __post_init__(self) -> None:
        check_fields(self, "Recipe")
        for name, known in (
            ("start", STARTS),
            ("warmup_actions", WARMUP_ACTIONS),
            ("teacher_turns", TEACHER_TURNS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"Recipe.{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        for name in ("offline_fraction", "teacher_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"Recipe.{name} must be in [0, 1], got {getattr(self, name)}")
        if not self.noise_std >= 0.0:
            raise ValueError(f"Recipe.noise_std must be >= 0, got {self.noise_std}")
        if not 0.0 <= self.noise_smoothing <= 1.0:
            raise ValueError(
                f"Recipe.noise_smoothing must be in [0, 1], got {self.noise_smoothing}"
            )
        rows = self.offline_fraction * self.batch_size
        if not self.rollout and abs(rows - round(rows)) > 1e-9:
            raise ValueError(
                f"Recipe: offline_fraction {self.offline_fraction} of batch_size "
                f"{self.batch_size} is not a whole number of rows"
            )
        for name in ("batch_size", "utd", "update_every", "n_step", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"Recipe.{name} must be >= 1, got {getattr(self, name)}")
        if self.chunk > 1 and self.n_step > 1:
            raise ValueError("Recipe.chunk: a chunk is its own n-step window; leave n_step at 1")
        for name in ("warmup_steps", "critic_only_updates", "rollout", "teacher_share_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"Recipe.{name} must be >= 0, got {getattr(self, name)}")
        if not self.agent and self.start != "continued":
            raise ValueError('Recipe.agent must be named unless start = "continued"')
        if self.reset and self.start != "learned":
            raise ValueError('Recipe.reset needs start = "learned"')
        if self.wait_for_episode and self.critic_only_updates:
            raise ValueError(
                "Recipe.wait_for_episode: critic_only_updates come at the end of the warm-up and "
                "do not wait"
            )
        if self.rollout:
            self._check_rollout()

    def _check_rollout(self) -> None:
        """An update that is all of the last rollout leaves nothing for other fields to choose."""
        if self.warmup_steps:
            raise ValueError(
                "Recipe.warmup_steps must be 0 with a rollout, of which every step is learned "
                f"from, got {self.warmup_steps}"
            )
        for field in dataclasses.fields(self):
            if field.name in _OF_REPLAY and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"Recipe.{field.name} must be {field.default!r} with a rollout, which is not "
                    f"replayed, got {getattr(self, field.name)!r}"
                )
        if self.offline_fraction == 1.0:
            raise ValueError("Recipe.offline_fraction must be below 1 with a rollout")
        rows = self.rollout * self.offline_fraction / (1.0 - self.offline_fraction)
        if abs(rows - round(rows)) > 1e-6:
            raise ValueError(
                f"Recipe: offline_fraction {self.offline_fraction} behind a rollout of "
                f"{self.rollout} is {rows:g} rows, not a whole number"
            )

    @property
    def offline_rows(self) -> int:
        """Offline rows behind a rollout."""
        fraction = self.offline_fraction if self.rollout else 0.0
        return round(self.rollout * fraction / (1.0 - fraction))

    @property
    def needs_offline_data(self) -> bool:
        """Whether the loop reads offline transitions."""
        return self.offline_fraction > 0.0 or self.seed_buffer_with_offline

    def configure(self, config: Any) -> Any:
        """The agent's config with what the recipe fixes."""
        values: dict[str, Any] = dict(self.options)
        if has_setting(config, "utd"):
            values["utd"] = self.utd
        elif self.utd != 1:
            raise ValueError(f"Recipe.utd must be 1 for {self.agent}, which has no critic slices")
        if self.critic_only_updates and not has_setting(config, "train_actor"):
            raise ValueError(
                f"Recipe.critic_only_updates: {self.agent} cannot hold its actor still"
            )
        config = dataclasses.replace(config, **values)
        minibatch = setting(config, "minibatch", 1)
        if self.rollout % minibatch:
            raise ValueError(
                f"Recipe.rollout must be a multiple of {self.agent}'s minibatch = {minibatch}, "
                f"got {self.rollout}"
            )
        return config


RECIPES: Mapping[str, Recipe] = {
    "sac": Recipe(
        "From scratch, without data (Haarnoja et al. 2018).",
        warmup_actions="uniform",
    ),
    # On sparse rewards the authors take the entropy bonus away: --option backup_entropy=false.
    "rlpd": Recipe(
        "From scratch, half of each batch offline, many critic steps (Ball et al. 2023).",
        offline_fraction=0.5,
        warmup_actions="uniform",
        utd=20,
        options=(("backup_entropy", True), ("log_std_min", -20.0)),
    ),
    "wsrl": Recipe(
        "Keeps the networks, drops the data, warms up with the frozen policy (Zhou et al. 2024).",
        start="learned",
        utd=4,
        options=(
            ("actor_q", "min"),
            ("actor_rows", "all"),
            ("initial_log_std", -2.0),  # where the offline agent has no spread
            ("target_entropy_per_dim", -1.0),
            ("actor_lr", 1e-4),
            ("temperature_lr", 1e-4),
        ),
    ),
    # ResFiT's actor has a rate of 1e-6 for half a million steps, which moves a weight by 0.02 at
    # most in 20,000; ours is the agent's 1e-4. Its warm-up draws corrections from U(-0.2, 0.2),
    # ours has the agent's own exploration.
    "residual": Recipe(
        "A bounded correction to the frozen policy of a run (after ResFiT, 2025).",
        agent="residual",
        start="learned",
        offline_fraction=0.5,
        warmup_steps=10_000,
        critic_only_updates=10_000,
        utd=4,
        n_step=3,
    ),
    "residual_base": Recipe(
        "The same on any controller that the environment shows (`learn.bases`); in Python only.",
        agent="residual",
        offline_fraction=0.5,
        warmup_steps=10_000,
        critic_only_updates=10_000,
        utd=4,
        n_step=3,
        options=(("base_in_observation", True),),
    ),
    "quickstart": Recipe(
        "All of the policy by TD3, drawn to what reached the goal and else to where it began.",
        agent="anchored",
        start="learned",
        warmup_steps=9_000,
        noise_std=0.2,
        noise_smoothing=0.9,
        noise_varied=True,
        critic_only_updates=2_000,
        batch_size=128,
        utd=2,
        update_every=2,
        n_step=3,
        options=(
            ("anchor_weight", 0.03),
            ("success_weight", 0.3),
            ("exploration_std", 0.1),
            ("actor_lr", 2e-4),
            ("discount", 0.98),
            ("target_low", 0.0),
            ("target_high", 1.0),
        ),
    ),
    "iql": Recipe(
        "The offline update, on a buffer that starts as the dataset (Kostrikov et al. 2021).",
        agent="iql",
        start="continued",
        seed_buffer_with_offline=True,
        warmup_steps=0,
        options=(("decay_steps", 0),),  # an offline decay has ended at 0
    ),
    "famo2o": Recipe(
        "As iql, with the coefficients that the balance has learned to choose (Wang et al. 2023).",
        agent="famo2o",
        start="continued",
        seed_buffer_with_offline=True,
        warmup_steps=0,
        options=(("coefficients", "balance"), ("decay_steps", 0)),
    ),
    "awac": Recipe(
        "The offline update, on a buffer that starts as the dataset (Nair et al. 2020).",
        agent="awac",
        start="continued",
        seed_buffer_with_offline=True,
        warmup_steps=0,
    ),
    "continue": Recipe(
        "The run's own agent and its offline update, on a buffer that starts as the dataset.",
        agent="",
        start="continued",
        seed_buffer_with_offline=True,
        warmup_steps=0,
    ),
    "calql": Recipe(
        "The offline update, half of each batch offline (Nakamoto et al. 2023).",
        agent="calql",
        start="continued",
        offline_fraction=0.5,
        warmup_steps=0,
        wait_for_episode=True,
    ),
    "cql": Recipe(
        "As calql, without the calibration.",
        agent="cql",
        start="continued",
        offline_fraction=0.5,
        warmup_steps=0,
        wait_for_episode=True,
    ),
    # An actor step to two of the critics, as offline; the actor's penalty falls over a million
    # steps of the environment.
    "rebrac": Recipe(
        "The offline update without the critics' penalty, the actor's falling; half of each batch "
        "offline (Tarasov et al. 2023).",
        agent="rebrac",
        start="continued",
        offline_fraction=0.5,
        warmup_steps=0,
        utd=2,
        update_every=2,
        options=(("critic_bc_weight", 0.0), ("decay_steps", 500_000)),
    ),
    "fql": Recipe(
        "The offline update, on a buffer that starts as the dataset (Park et al. 2025).",
        agent="fql",
        start="continued",
        seed_buffer_with_offline=True,
        warmup_steps=0,
    ),
    "dagger": Recipe(
        "The student acts, the teacher labels, rows join those of the dataset (Ross et al. 2011).",
        agent="distill",
        start="learned",
        seed_buffer_with_offline=True,
        warmup_steps=0,
    ),
    "distill_forward": Recipe(
        "To a teacher on the states of the student alone, by the forward divergence.",
        agent="distill",
        start="learned",
        warmup_steps=0,
    ),
    "distill_reverse": Recipe(
        "The same by the reverse divergence.",
        agent="distill",
        start="learned",
        warmup_steps=0,
        options=(("divergence", "reverse"),),
    ),
    "qc": Recipe(
        "Q-chunking: the offline update on chunks of 5 actions (Li et al. 2025).",
        agent="qc",
        start="continued",
        seed_buffer_with_offline=True,
        chunk=5,
    ),
    "qc_fql": Recipe(
        "The same with a one-step policy.",
        agent="fql",
        start="continued",
        seed_buffer_with_offline=True,
        chunk=5,
    ),
    "ppo": Recipe(
        "From scratch, on rollouts (Schulman et al. 2017).",
        agent="ppo",
        warmup_steps=0,
        rollout=2048,
    ),
    "hnpg": Recipe(
        "From scratch, on rollouts; the critic reads as many offline rows (Zhou et al. 2023).",
        agent="hnpg",
        warmup_steps=0,
        rollout=1_000,
        offline_fraction=0.5,
    ),
    # The clip of V, of which the paper has no number, is taken to be that of the ratio.
    "unio4_online": Recipe(
        "PPO in small steps from an offline actor and its V (Lei et al. 2024).",
        agent="ppo",
        start="learned",
        warmup_steps=0,
        rollout=2048,
        options=(
            ("minibatch", 128),
            ("clip", 0.05),
            ("value_clip", 0.05),
            ("entropy_weight", 0.01),
            ("reward_scale", 0.1),
            ("actor_lr", 1e-5),
            ("value_lr", 2e-4),
            ("decay_steps", 1_465),  # 3M steps
        ),
    ),
}


def get(name: str) -> Recipe:
    """The recipe called `name`; an unknown name lists the known ones."""
    if name not in RECIPES:
        raise ValueError(f"no recipe is called {name!r}; known: {', '.join(sorted(RECIPES))}")
    return RECIPES[name]
