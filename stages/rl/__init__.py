"""PPO: its maths, log-probabilities, loop, checkpoint and signs of reward hacking.

Imports runtime, text, models and generation.
"""
