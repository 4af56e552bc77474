"""Rewards: numbers for generated crystals, which training maximises."""

from crystaljax.rewards.base import Reward, RewardBatch, create, register, registered

__all__ = ["Reward", "RewardBatch", "create", "register", "registered"]
