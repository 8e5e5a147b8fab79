"""`robo-rl methods`."""

import dataclasses

from tyro.conf import Positional


@dataclasses.dataclass(frozen=True)
class Command:
    """List the agents and recipes, or what can be set of one of them.

    Try:
    $ robo-rl methods iql
    """

    name: Positional[str] = ""
    """An agent or a recipe."""

    def run(self) -> int:
        """Tell."""
        from robo_rl.workflow import methods

        print(methods.report(self.name))
        return 0
