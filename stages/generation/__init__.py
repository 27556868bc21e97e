"""Prompts → answers.

Imports runtime and models.
"""
