"""What base, sft and rm share of transformers' Trainer.

Imports runtime, text and models.
"""
