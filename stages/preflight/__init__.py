"""What is wrong with a run, and what it will cost, before it starts; no stage of the graph uses it.

Imports runtime, text and models.
"""
