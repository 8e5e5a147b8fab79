import pathlib
import subprocess
import sys
import tomllib

import robo_rl

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_every_folder_of_code_is_packaged():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    home = pathlib.Path(robo_rl.__file__).parent
    rooms = {name: home / name for name in ("agents", "envs", "hardware", "launch")}
    if not rooms["agents"].exists():  # a source checkout keeps these beside the package
        rooms = {name: home.parent / name for name in rooms}
    # launch/ has no __init__.py: ROS 2 owns that name at the top level.
    folders = {"robo_rl", *(f"robo_rl.{name}" for name in rooms), "robo_rl.launch.commands"}
    for top, inside in (("robo_rl", home), *((f"robo_rl.{n}", at) for n, at in rooms.items())):
        for path in inside.rglob("__init__.py"):
            folders.add(".".join((top, *path.parent.relative_to(inside).parts)))
    assert set(setuptools["packages"]) == folders


def test_the_hardware_room_starts_without_jax():
    code = (
        "import sys; import robo_rl.hardware.server.robot_process, robo_rl.hardware.twin.process;"
        "print([name for name in ('jax', 'flax', 'minari', 'ogbench', 'gymnasium')"
        " if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"


def test_the_command_line_answers_without_jax():
    code = "import sys; import robo_rl.launch.cli; print('jax' in sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "False"


def test_the_lock_file_names_no_index():
    lock = (ROOT / "requirements.lock") if (ROOT / "requirements.lock").exists() else None
    if lock is None:  # the wheel is tested from a folder that has no lock file
        lock = ROOT.parent.parent / "requirements.lock"
    assert "://" not in lock.read_text()
    assert "index" not in lock.read_text()
