"""The frozen base on disk ↔ module, adapters and stacks, the reward head and its scores, ChatGLM-6B.

Imports runtime and text.
"""
