"""What several commands print."""

import sys
from typing import Any

from robo_rl import files


def checked(dataset: str, as_json: bool = False) -> int:
    """Check a dataset, print what was found, keep the report beside it; the exit code."""
    from robo_rl.data import check as checking
    from robo_rl.data.minari_io import open_dataset

    opened = open_dataset(dataset)
    report = checking.check(opened)
    print(json_text(report.to_json()) if as_json else report.table())
    problem = checking.store_report(opened, report)
    if problem:
        print(problem, file=sys.stderr)
    return report.exit_code


def json_text(value: Any) -> str:
    """JSON that every reader takes: what is not finite is null."""
    return files.dumps(value, indent=2)
