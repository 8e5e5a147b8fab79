"""Networks, distributions, normalisation and optimisation steps: pure functions over pytrees."""
