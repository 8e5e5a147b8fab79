"""What a loop reports, kept for a test."""

import numpy as np


class History:
    """What a run reports, by metric."""

    def __init__(self):
        self.steps, self.rows = [], []

    def metrics(self, step, values):
        self.steps.append(step)
        self.rows.append(values)

    def checkpoint(self, step, state):
        pass

    def __getitem__(self, name):
        """(R,), nan where a report lacks it, as before the first update."""
        return np.array([row.get(name, np.nan) for row in self.rows])
