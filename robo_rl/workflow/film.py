"""A film of one episode of a policy in any environment that can draw itself.

MuJoCo chooses its OpenGL backend once, at import: so the episode is played in a process of its own,
with a backend that works here.
"""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from robo_rl import extras, files
from robo_rl.data.spaces import Spaces
from robo_rl.envs.registry import EnvError, EnvSetting
from robo_rl.locks import Aside
from robo_rl.runs import configs
from robo_rl.workflow import environment, video
from robo_rl.workflow.subject import Subject

_LONGEST_S = 600.0
_FPS = 20.0


def episode(subject: Subject, setting: EnvSetting, seed: int, out: pathlib.Path) -> None:
    """Write an .mp4 of the episode that begins with `seed`. Raises EnvError that says why not."""
    check_place(out)
    extras.require("mujoco", "imageio")
    backend = video.find_backend()
    if backend is None:
        raise EnvError(f"video (--video): {video.INSTALL_HINT}")
    with Aside(out.parent, ".film-") as aside:
        part = aside.folder / out.name
        _filmed(_plan(subject, setting, seed, part), backend)
        part.replace(out)


def check_place(out: pathlib.Path) -> None:
    """Raise ValueError where a film cannot be: its folder or that one's must be there."""
    if out.suffix != ".mp4":
        raise ValueError(f"video (--video) {out}: films are .mp4 files")
    folder = files.absolute(out).parent
    if not folder.is_dir() and not folder.parent.is_dir():
        raise ValueError(f"video (--video) {out}: make {folder.parent} first, it is not there")


def _plan(subject: Subject, setting: EnvSetting, seed: int, out: pathlib.Path) -> dict[str, Any]:
    return {
        "policy": str((subject.folder or subject.name).resolve()),
        "exported": subject.folder is not None,
        "step": subject.step,
        "env": setting.to_json(),
        "spaces": configs.to_json(subject.spaces),
        "frames": subject.frames,
        "seed": seed,
        "out": str(out.resolve()),
    }


def _filmed(plan: Mapping[str, Any], backend: str) -> None:
    """Play the plan in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "robo_rl.workflow.film", json.dumps(plan)],
        env={**os.environ, "MUJOCO_GL": backend},
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise EnvError(
            f"video (--video): {plan['env']['id']} could not be filmed: {lines[-1][-300:]}"
        )


def _play(plan: dict[str, Any]) -> None:
    """In the child: act, draw, encode."""
    import imageio.v2 as imageio  # late: only the child needs an encoder

    setting = EnvSetting.from_json(plan["env"])
    spaces = configs.from_json(Spaces, plan["spaces"])
    env = environment.learner_env(setting, spaces, frames=plan["frames"], render_mode="rgb_array")
    policy = _policy(plan)
    fps = environment.rate_hz(setting) or _FPS
    try:
        with _writer(imageio, pathlib.Path(plan["out"]), fps) as writer:
            observation, _ = env.reset(seed=plan["seed"])
            policy.reset(plan["seed"])
            over = False
            while not over:
                writer.append_data(env.render())
                observation, _, terminated, truncated, _ = env.step(policy.act(observation))
                over = terminated or truncated
            writer.append_data(env.render())
    finally:
        env.close()


def _writer(imageio: Any, path: pathlib.Path, fps: float) -> Any:
    return imageio.get_writer(path, fps=fps, macro_block_size=8)


def _policy(plan: dict[str, Any]) -> Any:
    if plan["exported"]:
        from robo_rl.hardware.runtime.policy import NumpyPolicy

        return NumpyPolicy.load(pathlib.Path(plan["policy"]))
    from robo_rl.workflow.run import load_run

    return load_run(plan["policy"]).policy(plan["step"])


if __name__ == "__main__":
    _play(json.loads(sys.argv[1]))
