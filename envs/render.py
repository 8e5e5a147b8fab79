"""Pictures of a simulated scene. Needs off-screen OpenGL (`MUJOCO_GL=egl` or `osmesa`)."""

from typing import Any

import mujoco
import numpy as np


class SceneRenderer:
    """One camera on one model. Opens an OpenGL context: raises where there is none."""

    def __init__(self, model: Any, width: int = 640, height: int = 480, camera: str = "front"):
        self._camera = camera
        self._renderer = mujoco.Renderer(model, height=height, width=width)

    def frame(self, data: Any) -> np.ndarray:
        """The scene as it is, RGB (H, W, 3) uint8."""
        self._renderer.update_scene(data, camera=self._camera)
        return np.asarray(self._renderer.render())

    def close(self) -> None:
        """Free the OpenGL context."""
        self._renderer.close()
