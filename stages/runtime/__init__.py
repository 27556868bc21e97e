"""How a command runs: parameters, errors, atomic writing, resume, processes.

Imports no other room.
"""
