"""The example of a robot runs, and its kit says the truth about its model."""

import os
import pathlib

import mujoco
import numpy as np
import pytest

from robo_rl.envs.registry import EnvSetting
from robo_rl.hardware import robots
from robo_rl.hardware.bridges.dds import MAX_DOMAIN_ID
from robo_rl.hardware.guard.barrier import BarrierConfig, BarrierFilter
from robo_rl.hardware.guard.points import PointKinematics
from robo_rl.hardware.guard.shaping import Shaper
from robo_rl.plugins import load_file
from robo_rl.workflow import deploy

EXAMPLE = pathlib.Path(__file__).resolve().parents[2] / "examples" / "own_robot.py"


@pytest.fixture(scope="module")
def kit():
    return robots.get(str(EXAMPLE))


def test_the_example_runs_another_examples_task(capsys):
    module, _ = load_file(EXAMPLE)
    assert module.main(episodes=3) == 1.0
    assert "desk_arm: 3 of 3 episodes succeed" in capsys.readouterr().out


def test_its_balls_cover_every_capsule_from_the_upper_arm_on(kit):
    """Distances by MuJoCo from random places to the true geoms: never less than to the balls."""
    probe_spec = kit.world()
    marker = probe_spec.worldbody.add_body(name="probe", mocap=True)
    marker.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.001, 0.0, 0.0), name="probe")
    model = probe_spec.compile()
    data = mujoco.MjData(model)
    balls = (*kit.body.links, *kit.body.fingers)
    radii = np.array([ball.radius_m for ball in balls])
    rng = np.random.default_rng(0)
    covered = {"upper_arm", "forearm", "wrist", "palm", "hand", "left_finger", "right_finger"}
    geoms = [g for g in range(model.ngeom) if model.body(model.geom_bodyid[g]).name in covered]
    probe, kinematics = (
        model.geom("probe").id,
        PointKinematics(kit.model(), kit.names.arm_joints, balls),
    )
    for opening in (0.0, 0.2, 0.4):
        for _ in range(20):
            q = rng.uniform(-1.0, 1.0, 6)
            for name, angle in zip(kit.names.arm_joints, q, strict=True):
                data.joint(name).qpos[0] = angle
            for name, closed in kit.fingers.items():
                data.joint(name).qpos[0] = closed * opening / 0.4
            mujoco.mj_kinematics(model, data)
            centres = kinematics.update(q)
            data.geom_xpos[probe] = centres[rng.integers(len(centres))] + rng.normal(size=3) * 0.1
            true = min(mujoco.mj_geomDistance(model, data, probe, g, 1.0, None) for g in geoms)
            ours = (np.linalg.norm(data.geom_xpos[probe] - centres, axis=1) - radii).min()
            assert ours <= true + 0.001 + 1e-6


def test_its_home_and_workspace_are_safe_for_the_barrier_filter(kit):
    barrier = BarrierFilter(kit, Shaper(kit.spec), BarrierConfig.of(kit))
    assert barrier.min_height(np.array(kit.spec.home_rad)) > 0.0


class Exported:
    """What deployment asks of an exported policy: here the task's controller."""

    def __init__(self, kit):
        task = load_file(EXAMPLE.with_name("own_task.py"))[0]
        robot, self._act = f"{EXAMPLE}:DESK_ARM", task.controller
        kwargs = {"task": f"{task.__file__}:Hover", "robot": robot}
        env = EnvSetting("robo_rl/Arm-v0", kwargs).to_json()
        digest = kit.spec.digest()
        meta = {"arm": kit.name, "robot": robot, "arm_digest": digest, "env": env}
        self.description = {"meta": meta}

    def reset(self, seed):
        pass

    def act(self, observation):
        return self._act(observation)


def test_twin_guards_filter_and_recorder_take_it_in_processes_of_their_own(
    kit, tmp_path, monkeypatch
):
    """One episode of an own task on an own arm over ROS 2, in real time."""
    monkeypatch.setattr(deploy.NumpyPolicy, "load", lambda path: Exported(kit))
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    beside = ((0.3, 0.35, 0.2, 0.05),)
    plan = deploy.Plan(tmp_path, tmp_path, 1, domain_id=MAX_DOMAIN_ID - worker, keep_out=beside)
    result = deploy.run(plan)
    (outcome,) = result.outcomes
    assert (outcome.success, outcome.fault) == (True, "")
    assert outcome.clearance_m > 0.0
    assert max(result.excess.values()) < 1e-5
    assert outcome.film.fingers == kit.fingers
