"""A monitor that keeps what a loop tells it, and can end the loop as a signal would."""

import numpy as np

from robo_rl.runs import trees


class Memory:
    """Metrics, and flat copies of checkpoints; `kill_after` a step, it raises."""

    def __init__(self, kill_after=None):
        self.rows, self.saved, self.kill_after = [], {}, kill_after

    def metrics(self, step, values):
        self.rows.append({"step": step, **values})

    def checkpoint(self, step, snapshot):
        self.saved[step] = {k: np.array(v) for k, v in trees.flatten(snapshot).items()}
        if self.kill_after is not None and step >= self.kill_after:
            raise KeyboardInterrupt
