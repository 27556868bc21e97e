"""What a page holds besides its text: scripts and their hashes, styles, and data as JSON that no browser runs."""

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

from markupsafe import Markup


def policy(*scripts: str) -> str:
    """A Content-Security-Policy: only these scripts run, and nothing is asked for from anywhere."""
    hashes = " ".join(_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def json_text(value: Any) -> Markup:
    """JSON in which every character is escaped that could end a script."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def asset(name: str) -> str:
    """A file of this room."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
