"""Minari datasets in and out: the names that other rooms use."""

from robo_rl.data.locate import DatasetSummary, datasets_root, list_datasets
from robo_rl.data.minari_read import Dataset, open_dataset
from robo_rl.data.minari_write import Card, write_dataset
from robo_rl.data.provenance import Provenance, RewardLabel, StateLayout

__all__ = [
    "Card",
    "Dataset",
    "DatasetSummary",
    "Provenance",
    "RewardLabel",
    "StateLayout",
    "datasets_root",
    "list_datasets",
    "open_dataset",
    "write_dataset",
]
