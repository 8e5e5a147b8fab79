"""`robo-rl doctor`: what this machine can do, and what to do about the rest."""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

from robo_rl import extras
from robo_rl.workflow import video

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "gymnasium", "minari")
"""Without these nothing is learned."""
EXTRAS = ("mujoco", "ogbench", "imageio", "cyclonedds", "mcap", "rosbags", "daqp")
"""These come with an extra of the package."""


@dataclasses.dataclass(frozen=True)
class Condition:
    """One line of the doctor's table. `state` is ok, warning or error."""

    name: str
    state: str
    found: str
    advice: str = ""


def examine() -> list[Condition]:
    """Look at everything. Nothing here raises: a check that fails is a finding."""
    checks: tuple[Callable[[], Condition], ...] = (
        _python,
        _packages,
        _extras,
        _processor,
        _memory,
        _disk,
        _learner,
        _graphics,
        _bus,
        _timing,
    )
    return [_guarded(check) for check in checks]


def render(findings: list[Condition]) -> str:
    """The findings as a table for people."""
    sign = {"ok": "ok", "warning": "WARN", "error": "FAIL"}
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{sign[finding.state]:>4}  {finding.name:<{width}}  {finding.found}")
        if finding.advice:
            lines.append(f"      {'':<{width}}  -> {finding.advice}")
    return "\n".join(lines)


def _guarded(check: Callable[[], Condition]) -> Condition:
    name = check.__name__.strip("_")
    try:
        return check()
    except extras.MissingExtraError as error:
        return Condition(name, "warning", str(error))
    except Exception as error:  # noqa: BLE001 - a doctor reports, whatever the illness
        return Condition(name, "error", f"{type(error).__name__}: {error}")


def _python() -> Condition:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Condition("python", "ok", found)


def _packages() -> Condition:
    found, absent = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(package)
    if absent:
        advice = "install the locked versions: pip install -r requirements.lock"
        return Condition("packages", "error", f"missing: {', '.join(absent)}", advice)
    return Condition("packages", "ok", ", ".join(found))


def _extras() -> Condition:
    found, absent = [], []
    for package in EXTRAS:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(package)
    if absent:
        wanted = ",".join(dict.fromkeys(extras.EXTRA[package] for package in absent))
        advice = f"for the simulated or a real arm: pip install 'robo_rl[{wanted}]'"
        return Condition("extras", "warning", f"not installed: {', '.join(absent)}", advice)
    return Condition("extras", "ok", ", ".join(found))


def _processor() -> Condition:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if (cores or 1) < 2:
        advice = "training and a real-time robot process want two cores at least"
        return Condition("cores", "warning", str(cores), advice)
    return Condition("cores", "ok", str(cores))


def _memory() -> Condition:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if total < 4:
        return Condition("memory", "warning", f"{total:.1f} GiB", "training wants 4 GiB")
    return Condition("memory", "ok", f"{total:.1f} GiB")


def _disk() -> Condition:
    free = shutil.disk_usage(pathlib.Path.cwd()).free / 2**30
    if free < 2:
        advice = "datasets, checkpoints and recordings of the quickstart want 2 GiB"
        return Condition("disk", "warning", f"{free:.1f} GiB free here", advice)
    return Condition("disk", "ok", f"{free:.1f} GiB free here")


def _learner() -> Condition:
    code = "import jax; print(*(f'{d.platform}:{d.device_kind}' for d in jax.devices()), sep=', ')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120
    )
    if done.returncode != 0:
        return Condition("jax devices", "error", done.stderr.strip()[-200:], "reinstall jax")
    return Condition("jax devices", "ok", done.stdout.strip())


def _graphics() -> Condition:
    extras.require("mujoco")
    backend = video.find_backend()
    if backend is None:
        return Condition("off-screen OpenGL", "warning", "none", video.INSTALL_HINT)
    return Condition("off-screen OpenGL", "ok", backend)


def _bus() -> Condition:
    """Two ends of a topic in this process, over loopback."""
    extras.require("cyclonedds")
    from robo_rl.hardware.bridges import dds, ros_types

    domain = 1 + os.getpid() % 100
    with dds.Node("robo_rl_doctor", domain_id=domain) as node:
        writer = node.publisher("doctor", ros_types.Float64MultiArray)
        reader = node.subscription("doctor", ros_types.Float64MultiArray)
        start = time.monotonic()
        while time.monotonic() - start < 5.0:
            writer.publish(ros_types.Float64MultiArray(data=[1.0]))
            if reader.take():
                return Condition("DDS over loopback", "ok", "a message went round")
            time.sleep(0.02)
    advice = "DDS needs UDP multicast on the loopback interface"
    return Condition("DDS over loopback", "error", "no message arrived in 5 s", advice)


def _timing() -> Condition:
    """Lateness of a 500 Hz loop over one second."""
    late = []
    deadline = time.monotonic()
    for _ in range(500):
        deadline += 0.002
        time.sleep(max(0.0, deadline - time.monotonic()))
        late.append(time.monotonic() - deadline)
    worst = 1e3 * max(late)
    missed = sum(value > 0.002 for value in late)
    found = f"500 Hz for 1 s: worst lateness {worst:.1f} ms, {missed} of 500 deadlines missed"
    if missed > 25:
        return Condition("timing", "warning", found, "close other programs before driving an arm")
    return Condition("timing", "ok", found)
