"""Experiments with reinforcement learning from interatomic potentials; see `training.rlip`."""
