"""How many of 50 defects `robo-rl data check` finds in good recordings, and which it does not.

    python -m benchmarks.check_defects [--sets cube-noisy halfcheetah-mixed] [--without infos]

A defect counts as caught when the report has a code that the good set's report lacks. With
`--without infos replay`, infos are left out, and nothing is computed again in the environment.
"""

import argparse
import os
import tempfile
import time
import warnings
from typing import Any
from unittest import mock

from benchmarks import defects
from benchmarks.good_sets import PROVENANCE, good_set
from robo_rl.data.check import CheckConfig, check
from robo_rl.data.errors import DatasetError
from robo_rl.data.minari_io import Dataset, open_dataset, write_dataset
from robo_rl.data.report import Report

_ID = "defect/one-v0"


def main() -> None:
    """Spoil each set in every way and print what was found, then the totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", default=["cube-noisy", "halfcheetah-mixed"])
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--without", nargs="*", default=[], choices=["infos", "replay"])
    parser.add_argument("--only", default="", help="part of the names of the defects to try")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    lines = []
    for name in arguments.sets:
        good = good_set(name, arguments.episodes)
        with (
            tempfile.TemporaryDirectory() as root,
            mock.patch.dict(os.environ, MINARI_DATASETS_PATH=root),
        ):
            caught = _Trial(good, arguments.without).run(arguments.only)
        for kind, found in caught.items():
            lines.append(f"{name}, {kind}: {sum(found.values())} of {len(found)} caught")
    print("\n".join(["", *lines]))


class _Trial:
    """One good set, spoilt in every way."""

    def __init__(self, dataset: Dataset, without: list[str]) -> None:
        self._dataset = dataset
        self._config = CheckConfig(reward_samples=0) if "replay" in without else CheckConfig()
        episodes = dataset.episodes([] if "infos" in without else None)
        self._good = defects.Setting(episodes, dataset.env_spec, dataset.provenance)
        self._known: set[str] = set()
        shape, acts = dataset.observation_space.shape, dataset.action_space.shape
        if not shape or shape[0] < 6 or not acts or acts[0] < 2:
            raise SystemExit(
                f"{dataset.id}: these defects need a vector of 6 numbers or more and 2 actions or "
                f"more, it has {dataset.observation_space} and {dataset.action_space}"
            )

    def run(self, only: str) -> dict[str, dict[str, bool]]:
        """By kind and name of the defect, whether it was caught."""
        report = check(self._put(self._good), self._config)
        self._known = {finding.code for finding in report.findings}
        print(f"{self._dataset.id}, good: {_said(report)}", flush=True)
        semantic = {}
        for defect in defects.semantic():
            spoilt = defect.spoil(self._good) if only in defect.name else None
            if spoilt is not None:
                semantic[defect.name] = self._judge(defect.name, self._put(spoilt))
        form = {}
        for name, spoil in defects.FORM.items():
            if only in name:
                dataset = self._put(self._good)
                spoil(dataset.folder)
                form[name] = self._judge(name, dataset)
        return {"meaning": semantic, "form": form}

    def _put(self, setting: defects.Setting) -> Dataset:
        write_dataset(
            _ID,
            setting.episodes,
            observation_space=self._dataset.observation_space,
            action_space=self._dataset.action_space,
            provenance=setting.provenance or PROVENANCE,
            env=setting.env,
            overwrite=True,
            as_is=True,
        )
        return open_dataset(_ID)

    def _judge(self, name: str, dataset: Dataset) -> bool:
        began = time.perf_counter()
        try:
            # Opened anew, as what is said beside the data may have changed too.
            report = check(open_dataset(dataset.folder), self._config)
            new = {finding.code for finding in report.findings} - self._known
            caught, said = bool(new), _said(report)
        except DatasetError as error:
            caught, said = True, f"refused: {str(error)[:100]}"
        took = time.perf_counter() - began
        print(f"  {'caught' if caught else 'MISSED'}  {name:42s} {said} [{took:.1f} s]", flush=True)
        return caught


def _said(report: Report) -> str:
    found: list[Any] = [
        f"{finding.severity[0]}:{finding.code}({finding.count}/{finding.of})"
        for finding in report.findings
    ]
    return " ".join(found) or "nothing"


if __name__ == "__main__":
    main()
