"""The environment that the flags --env, --task and --robot name."""

from typing import Any


def setting(options: dict[str, Any]) -> Any:
    """What `env` is to the verbs; takes `env`, `task` and `robot` out of a command's options."""
    env, task, robot = (options.pop(name) for name in ("env", "task", "robot"))
    if task is None:
        if robot is not None:
            raise ValueError(f"--robot {robot}: name its task with --task")
        return env
    if env is not None:
        raise ValueError("--env and --task both name the environment; give one of them")
    from robo_rl.workflow.environment import of_task

    return of_task(task, robot)
