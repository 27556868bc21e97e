"""Texts → numbers, numbers → intervals; knows no torch.

Imports no other room.
"""
