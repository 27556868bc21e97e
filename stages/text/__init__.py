"""Records as JSON lines, what is held out, and prompts and answers → token ids.

Imports runtime.
"""
