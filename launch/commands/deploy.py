"""`robo-rl deploy`."""

import dataclasses
import pathlib

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """Run an exported policy on an arm over ROS 2, guarded, filtered and recorded.

    Without --attach a twin is started for the occasion, on a domain that has no arm yet.

    Try:
    $ robo-rl deploy policies/demo --episodes 5 --keep-out 0.42 0.0 0.16 0.05
    """

    policy: Positional[pathlib.Path]
    """An exported policy."""
    episodes: int = 5
    """How many episodes."""
    task: int | None = None
    """Which task of the scene that the policy is at home in, where it has several; by default the
    one it was trained for, or OGBench's, 2."""
    domain: int = 0
    """ROS_DOMAIN_ID."""
    attach: bool = False
    """Drive the arm that is on the bus already instead of starting a twin."""
    gap: float = 0.0
    """Strength of the domain gap of the twin that is started."""
    keep_out: tuple[float, float, float, float] | None = None
    """Centre x y z and radius of a sphere that no part of the hand may enter, m, base frame."""
    keep_out_margin: float | None = None
    """Distance in m that the filter keeps beyond the sphere; none takes the filter's default."""
    filter: bool = True
    """The barrier filter. The other guards have no switch here."""
    out: pathlib.Path = pathlib.Path("runs/deploy")
    """Where recordings and the summary go."""

    def run(self) -> int:
        """Deploy."""
        from robo_rl import extras
        from robo_rl.launch import output

        extras.require_extras("sim", "robot")
        from robo_rl.workflow.deploy import deploy

        options = dataclasses.asdict(self)
        result = deploy(options.pop("policy"), **options)
        print(output.json_text(result.summary()))
        print(f"recording: {result.recording} (opens in Foxglove)")
        return 0
