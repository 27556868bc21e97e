"""Chat, export and the model card; no stage of the graph uses it.

Imports runtime, text, models, generation, rl and metrics.
"""
