"""Answers → what a model makes of them: rewards, and the KL divergence between two policies.

Imports runtime, text, models and metrics.
"""
