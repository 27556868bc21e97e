"""Records, the dialogue and preference rules, and prompts and answers → token ids.

Imports runtime.
"""
