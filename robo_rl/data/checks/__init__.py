"""One file per kind of defect that `robo_rl.data.check` looks for."""
