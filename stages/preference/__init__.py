"""Preference pairs: token ids, batches, the reward model's loss, and how often its scores agree with the pairs.

Imports runtime, text, models and training.
"""
