"""Films of recorded episodes, rendered off-screen in a process of its own.

MuJoCo chooses its OpenGL backend once, at import, so the backend is found by trying each in a
child process, and the film is made in another child with the backend that worked.
"""

import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # MuJoCo is imported in the children, which choose its backend
    from robo_rl.hardware.twin.mujoco_device import Scene

BACKENDS = ("egl", "osmesa")
INSTALL_HINT = (
    "No off-screen OpenGL was found, so no video is made. On Debian or Ubuntu: "
    "apt-get install libegl1 libgl1 (or libosmesa6)."
)

_PROBE = (
    "import mujoco; m = mujoco.MjModel.from_xml_string('<mujoco/>');"
    "r = mujoco.Renderer(m, 16, 16); r.update_scene(mujoco.MjData(m)); r.render()"
)


@dataclasses.dataclass(frozen=True)
class Footage:
    """What a camera would have seen: T rows at a fixed rate."""

    q_rad: np.ndarray  # (T, J)
    gripper: np.ndarray  # (T,) closedness
    objects: dict[str, np.ndarray]  # name -> (T, 7) position and quaternion wxyz
    targets: dict[str, np.ndarray]  # name -> (7,)
    spheres: np.ndarray  # (K, 4) keep-out centres and radii, m
    rate_hz: float
    fingers: Mapping[str, float]  # finger joint -> its position at closedness 1


def find_backend() -> str | None:
    """The first OpenGL backend that renders off-screen here, or None."""
    for backend in BACKENDS:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _PROBE],
            env={**os.environ, "MUJOCO_GL": backend},
            capture_output=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0:
            return backend
    return None


def film(
    scene: pathlib.Path, episode: Footage, out: pathlib.Path, width: int = 480, height: int = 360
) -> str | None:
    """Write an MP4 of the episode. Returns None, or why there is no film."""
    backend = find_backend()
    if backend is None:
        return INSTALL_HINT
    source = out.with_suffix(".npz")
    save_episode(source, episode)
    command = [sys.executable, "-W", "ignore", "-m", "robo_rl.workflow.video"]
    command += [str(scene), str(source), str(out), str(width), str(height)]
    done = subprocess.run(
        command,
        env={**os.environ, "MUJOCO_GL": backend},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    source.unlink()
    if done.returncode != 0 or not out.exists():
        return f"Rendering with {backend} failed: {done.stderr.strip()[-400:]}"
    return None


def save_episode(path: pathlib.Path, episode: Footage) -> None:
    """Write an episode as plain arrays."""
    arrays = {f"object:{name}": rows for name, rows in episode.objects.items()}
    arrays |= {f"target:{name}": row for name, row in episode.targets.items()}
    arrays |= {f"finger:{name}": np.array(closed) for name, closed in episode.fingers.items()}
    np.savez(
        path,
        allow_pickle=False,
        q_rad=episode.q_rad,
        gripper=episode.gripper,
        spheres=episode.spheres,
        rate_hz=np.array(episode.rate_hz),
        **arrays,
    )


def load_episode(path: pathlib.Path) -> Footage:
    """Read what `save_episode` wrote."""
    with np.load(path, allow_pickle=False) as data:
        return Footage(
            q_rad=data["q_rad"],
            gripper=data["gripper"],
            objects=_named(data, "object:"),
            targets=_named(data, "target:"),
            spheres=data["spheres"],
            rate_hz=float(data["rate_hz"]),
            fingers=_named(data, "finger:", float),
        )


def _named(data: Any, kind: str, convert: Callable[[np.ndarray], Any] = np.asarray) -> Any:
    """The arrays whose names begin with `kind`, by the rest of their names."""
    return {k.removeprefix(kind): convert(data[k]) for k in data.files if k.startswith(kind)}


def _render(scene_path: str, source: str, out: str, width: str, height: str) -> None:
    import imageio.v2 as imageio
    import mujoco

    from robo_rl.hardware.twin.mujoco_device import load_scene

    scene = load_scene(scene_path)
    model, data = scene.model, mujoco.MjData(scene.model)
    episode = load_episode(pathlib.Path(source))
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, int(width))
    model.vis.global_.offheight = max(model.vis.global_.offheight, int(height))
    renderer = mujoco.Renderer(model, int(height), int(width))
    aside = pathlib.Path(out).with_suffix(".part.mp4")
    writer: Any = imageio.get_writer(aside, fps=episode.rate_hz, macro_block_size=4)
    with writer as film_file:
        for row in range(len(episode.q_rad)):
            _pose(scene, data, episode, row)
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera="front")
            for sphere in episode.spheres:
                _add_sphere(renderer.scene, sphere)
            film_file.append_data(renderer.render())
    os.replace(aside, out)
    renderer.close()


def _pose(scene: "Scene", data: Any, episode: Footage, row: int) -> None:
    """Put the recorded row into the model. All finger joints follow the gripper's closedness."""
    names = scene.names
    for joint, angle in zip(names.arm_joints, episode.q_rad[row], strict=True):
        data.joint(joint).qpos[0] = angle
    for joint, closed in episode.fingers.items():
        data.joint(joint).qpos[0] = closed * episode.gripper[row]
    for name, rows in episode.objects.items():
        data.joint(names.objects[name]).qpos[:] = rows[row]
    for name, pose in episode.targets.items():
        mocap = scene.model.body(names.targets[name]).mocapid[0]
        data.mocap_pos[mocap], data.mocap_quat[mocap] = pose[:3], pose[3:]


def _add_sphere(view: Any, sphere: np.ndarray) -> None:
    import mujoco

    geom = view.geoms[view.ngeom]
    rgba = np.array([0.85, 0.2, 0.15, 0.35], np.float32)
    size = np.array([sphere[3], 0.0, 0.0])
    mujoco.mjv_initGeom(
        geom, mujoco.mjtGeom.mjGEOM_SPHERE, size, sphere[:3], np.eye(3).ravel(), rgba
    )
    view.ngeom += 1


if __name__ == "__main__":
    _render(*sys.argv[1:])
