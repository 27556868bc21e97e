"""Dialogues and preferences in the formats that everybody has → the project's own.

`sources` reads records from a file, a folder or the hub, `recognize` finds out which of `formats` they are in, and
`convert` makes dialogues and preference records of them.
"""
