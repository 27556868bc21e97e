"""Numbers → a short Markdown text for a pull request."""

from typing import Any

from stages.page.templating import environment


def markdown(content: dict[str, Any], language: str) -> str:
    """The verdict, the scores, the differences and the probes.

    Args:
        content: as `document.content` gave it.
    """
    return environment(language).get_template("summary.md.jinja").render(content)
