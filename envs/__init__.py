"""Gymnasium tasks on a simulated or a real robot.

Importing this registers `robo_rl/CubeSingle-v0`, `CubeDouble`, `CubeTriple` and `CubeQuadruple`;
the keyword arguments of `gymnasium.make` are those of `robo_rl.envs.make.make_cube_env`.
"""

import gymnasium

_CUBE_STEPS = {"single": 200, "double": 500, "triple": 1000, "quadruple": 1000}

for _scene, _steps in _CUBE_STEPS.items():
    if f"robo_rl/Cube{_scene.capitalize()}-v0" not in gymnasium.registry:
        gymnasium.register(
            f"robo_rl/Cube{_scene.capitalize()}-v0",
            entry_point="robo_rl.envs.make:make_cube_env",
            max_episode_steps=_steps,
            kwargs={"scene": _scene},
        )
