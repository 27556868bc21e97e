"""The user's data → samples and pairs: formats, the rules for dialogues and preferences, contamination, facts.

`sources` reads records from a file, a folder or the hub, `recognize` finds out which of `formats` they are in, and
`convert` makes dialogues and preference records of them; `dialogues` and `preferences` make samples and pairs of those.
A room apart from `text`, which every stage that reads samples depends on: an edit here only runs `preprocess` again.

Imports runtime and text.
"""
