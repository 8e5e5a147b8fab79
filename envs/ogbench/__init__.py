"""OGBench's cube tasks on an arm: scenes, tasks, oracles, collection."""
