"""`robo-rl doctor`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Command:
    """Say what this machine can do, and what to install for the rest.

    Try:
    $ robo-rl doctor
    """

    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Examine the machine."""
        from robo_rl.launch import doctor, output

        findings = doctor.examine()
        if self.json:
            print(output.json_text([dataclasses.asdict(finding) for finding in findings]))
        else:
            print(doctor.render(findings))
        return int(any(finding.state == "error" for finding in findings))
