"""What several commands print."""

import json
import math
from typing import Any


def checked(dataset: str, as_json: bool = False) -> int:
    """Check a dataset, print what was found, keep the report beside it; the exit code."""
    from robo_rl.data import check as checking
    from robo_rl.data.minari_io import open_dataset

    opened = open_dataset(dataset)
    report = checking.check(opened)
    print(json_text(report.to_json()) if as_json else report.table())
    checking.store_report(opened, report)
    return report.exit_code


def json_text(value: Any) -> str:
    """JSON that every reader takes: what is not finite is null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value
