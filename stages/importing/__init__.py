"""Dialogues and preferences in common formats → the project's own.

`sources` reads records from a file, a folder or the hub, `recognize` finds out which of `formats` they are in, and
`convert` makes dialogues and preference records of them. A room of its own, apart from `text`, since every stage
depends on that one.

Imports runtime and text.
"""
