"""The UR5e with a Robotiq 2F-85 as a MuJoCo model, from the files inside the `ogbench` wheel.

Only the files are read; the package is never imported. Names are those of OGBench's scenes:
`ur5e/` before the arm's, `ur5e/robotiq/` before the gripper's.
"""

import functools
import importlib.util
import pathlib

import mujoco

ARM_PREFIX = "ur5e/"
GRIPPER_PREFIX = "robotiq/"
TOOL_SITE = ARM_PREFIX + GRIPPER_PREFIX + "pinch"
FLANGE_SITE = "attachment_site"
"""In the arm's own file."""
TIMESTEP_S = 0.002
SERVO_NM_RAD = (4500.0, 4500.0, 4500.0, 2000.0, 2000.0, 500.0)
"""Stiffness of each joint's servo, as OGBench sets it; the damping is the file's own."""

_ARM_FILE = pathlib.Path("universal_robots_ur5e") / "ur5e.xml"


def descriptions_folder() -> pathlib.Path:
    """The folder of robot descriptions in the installed `ogbench` package."""
    spec = importlib.util.find_spec("ogbench")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "ur5e: its MuJoCo files ship inside the `ogbench` wheel, which is not "
            "installed here; install it with `pip install ogbench`"
        )
    folder = pathlib.Path(spec.origin).parent / "manipspace" / "descriptions"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"ur5e: {folder} is missing: this ogbench has no robot descriptions; "
            "install ogbench >= 1.2"
        )
    return folder


@functools.cache
def ur5e_model() -> mujoco.MjModel:
    """Arm and gripper alone, base frame at the origin; no table, no objects, OGBench's names.

    Every call in a process returns the same model: copy it before changing it.
    """
    scene = mujoco.MjSpec()
    arm, gripper = _halves()
    # Only the kinematics matter here, so the three files may agree on the solver's default options.
    arm.option.integrator = scene.option.integrator
    gripper.option.cone, gripper.option.impratio = scene.option.cone, scene.option.impratio
    _join(scene, arm, gripper)
    return scene.compile()


def ur5e_world() -> mujoco.MjSpec:
    """The arm with OGBench's servo gains on OGBench's floor; the physics of its scenes."""
    scene = mujoco.MjSpec.from_file(str(descriptions_folder() / "floor_wall.xml"))
    arm, gripper = _halves()
    option = scene.option
    option.timestep = TIMESTEP_S
    option.integrator = gripper.option.integrator = arm.option.integrator
    option.cone = arm.option.cone = gripper.option.cone
    option.impratio = arm.option.impratio = gripper.option.impratio
    for light in list(arm.lights):
        arm.delete(light)
    for servo, stiffness in zip(arm.actuators, SERVO_NM_RAD, strict=True):
        servo.gainprm[0], servo.biasprm[1] = stiffness, -stiffness
    # A body of its own between flange and gripper, as in OGBench's scenes: a domain gap moves it.
    flange = arm.site(FLANGE_SITE)
    mount = flange.parent.add_body(name=GRIPPER_PREFIX, pos=flange.pos, quat=flange.quat)
    mount.add_frame().attach_body(gripper.body("base_mount"), GRIPPER_PREFIX, "")
    scene.attach(arm, frame=scene.worldbody.add_frame(), prefix=ARM_PREFIX)
    scene.stat.center, scene.stat.extent = (0.3, 0.0, 0.15), 0.7
    scene.visual.map.znear, scene.visual.map.zfar = 0.1, 10.0
    scene.worldbody.add_camera(
        name="front", pos=(1.287, 0.0, 0.509), quat=(0.579203, 0.405616, 0.405616, 0.579203)
    )
    return scene


@functools.cache
def arm_chain() -> mujoco.MjModel:
    """The arm without its gripper, as OGBench's inverse kinematics takes it."""
    return mujoco.MjModel.from_xml_path(str(descriptions_folder() / _ARM_FILE))


def _halves() -> tuple[mujoco.MjSpec, mujoco.MjSpec]:
    folder = descriptions_folder()
    arm = mujoco.MjSpec.from_file(str(folder / _ARM_FILE))
    gripper = mujoco.MjSpec.from_file(str(folder / "robotiq_2f85" / "2f85.xml"))
    for spec in (arm, gripper):
        for key in list(spec.keys):  # a key frame holds the joints of one half only
            spec.delete(key)
    return arm, gripper


def _join(scene: mujoco.MjSpec, arm: mujoco.MjSpec, gripper: mujoco.MjSpec) -> None:
    arm.attach(gripper, site=arm.site(FLANGE_SITE), prefix=GRIPPER_PREFIX)
    scene.attach(arm, frame=scene.worldbody.add_frame(), prefix=ARM_PREFIX)
