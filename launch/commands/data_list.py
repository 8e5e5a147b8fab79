"""`robo-rl data list`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Command:
    """List the Minari datasets on this machine.

    Try:
    $ robo-rl data list
    """

    def run(self) -> int:
        """List."""
        from robo_rl.data.minari_io import list_datasets

        rows = list_datasets()
        if not rows:
            print("no datasets yet; make one with `robo-rl data record` or `robo-rl data collect`")
        for row in rows:
            about = row.problem or f"{row.episodes:>6} episodes  {row.steps:>9} steps  {row.env_id}"
            print(f"{row.id:<40} {row.size_mb:>8.1f} MB  {about}")
        return 0
