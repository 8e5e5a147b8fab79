"""Gymnasium tasks on a simulated or a real robot.

Importing this registers `robo_rl/Arm-v0`, any task on any robot, whose keyword arguments are those
of `robo_rl.envs.make.make_arm_env`, and OGBench's cubes: `robo_rl/CubeSingle-v0`, `CubeDouble`,
`CubeTriple` and `CubeQuadruple`, with those of `make_cube_env`.
"""

import gymnasium

from robo_rl.envs.ogbench.geometry import STEP_LIMITS

ARM_ENV_ID = "robo_rl/Arm-v0"

if ARM_ENV_ID not in gymnasium.registry:
    # The step limit is the task's own: make_arm_env applies it.
    gymnasium.register(ARM_ENV_ID, entry_point="robo_rl.envs.make:make_arm_env")

for _scene, _steps in STEP_LIMITS.items():
    if f"robo_rl/Cube{_scene.capitalize()}-v0" not in gymnasium.registry:
        gymnasium.register(
            f"robo_rl/Cube{_scene.capitalize()}-v0",
            entry_point="robo_rl.envs.make:make_cube_env",
            max_episode_steps=_steps,
            kwargs={"scene": _scene},
        )
