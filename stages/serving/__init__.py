"""Chat, export and the model card; no stage of the graph uses it.

Imports any room but page, training, preflight and importing.
"""
