"""Rewards: what turns generated crystals into numbers worth maximising."""

from crystaljax.rewards.base import Reward, RewardBatch, create, register, registered

__all__ = ["Reward", "RewardBatch", "create", "register", "registered"]
