"""The report and what Git keeps of a run; knows no torch.

Imports runtime and metrics.
"""
