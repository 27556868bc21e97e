"""Sections, figures, samples → one HTML file that needs nothing else and lets nothing in.

Data stand as JSON in scripts that no browser runs, with every character escaped that could end one. A policy in
the head allows the scripts of this package by their hash, no other script, and no request to anywhere.
"""

import base64
import hashlib
import json
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from stages.page import tables
from stages.page.answers import browser
from stages.page.comparison import Comparison
from stages.page.figures import Figure
from stages.page.health import Check
from stages.page.i18n import Sentence, both, dictionary, say
from stages.page.inputs import DOCUMENTS, Run
from stages.page.markup import Markup, element, join
from stages.page.verdict import Answer

SCRIPTS = ("look.js", "charts.js", "browser.js")
SPOKEN = ("axis.", "browser.", "chart.", "model.", "page.", "pairs.")  # the words that the scripts need


class Page(Template):
    """`${name}` and `${page.key}`, a key of the dictionary, are filled in; a filling is not searched again."""

    idpattern = r"[a-z][a-z0-9._-]*"


def render(
    run: Run,
    comparison: Comparison,
    answers: list[Answer],
    checks: list[Check],
    figures: dict[str, list[Figure]],
    plotly: str,
    language: str,
) -> bytes:
    """The whole page.

    Args:
        figures: by section: `results`, `losses`, `behaviour`, `diagnostics`, `reward_model`.
        plotly: plotly's JavaScript.
    """
    script = "(() => {\n" + "\n".join(_asset(name) for name in SCRIPTS) + "})();\n"
    page = Page(_asset("template.html")).substitute(
        {key: both(key) for key in dictionary() if key.startswith("page.")},
        language=language,
        title=escape(say(Sentence("page.title"), language)),
        policy=POLICY.format(scripts=f"{_hash(script)} {_hash(plotly)}"),
        style=_asset("page.css"),
        setup=both(_setup(run)),
        count=str(len(run.samples)),
        verdict=join(_answer(answer) for answer in answers),
        scores=tables.scores(comparison),
        differences=tables.differences(comparison),
        health=tables.health(checks),
        changed=tables.changed(run.params, run.defaults),
        settings=_settings(run),
        **{name: join(_figure(figure) for figure in group) for name, group in figures.items()},
        words=_json({key: text for key, text in dictionary().items() if key.startswith(SPOKEN)}),
        panels=_json(_panels(figures)),
        samples=_json(browser(run)),
        plotly=plotly,
        script=script,
    )
    # Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark.
    return page.encode("utf-8", errors="replace")


POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
    "base-uri 'none'; form-action 'none'"
)


def _setup(run: Run) -> Sentence:
    """What tells this run's page from another's at a glance."""
    data = run.params["data"]
    values = {"model": run.params["model"]["name"], "dialogues": data["dialogues"], "preferences": data["preferences"]}
    return Sentence("run.setup", values | {"seed": str(run.params["seed"])})


def _answer(answer: Answer) -> Markup:
    because = [element("li", both(sentence)) for sentence in answer.because]
    return element(
        "article",
        element("h3", both(f"verdict.{answer.name}")),
        element("p", both(answer.short), class_="short"),
        element("ul", *because),
        class_=f"answer {answer.tone}",
    )


LAYOUT = {1: "one", 2: "pair"}


def _figure(figure: Figure) -> Markup:
    panels = []
    for number, panel in enumerate(figure.panels):
        name = f"{figure.name}-{number}"
        alt = element("p", both(panel.alt), id=f"alt-{name}", class_="unseen")
        plot = element("div", class_="plot", role="img", aria_labelledby=f"alt-{name}", data_panel=name)
        title = element("h4", both(panel.title)) if panel.title else None
        panels.append(element("div", title, alt, plot, class_="panel"))
    heading = element("h3", both(f"figure.{figure.name}"), id=f"heading-{figure.name}")
    return element(
        "figure",
        heading,
        element("figcaption", both(f"figure.{figure.name}.caption")),
        element("div", *panels, class_=f"panels {LAYOUT.get(len(panels), 'many')}"),
        element("p", both(figure.published), class_="published") if figure.published else None,
        element("details", element("summary", both("page.numbers")), class_="numbers", data_figure=figure.name),
        id=f"figure-{figure.name}",
        class_="wide" if figure.wide else None,
        aria_labelledby=f"heading-{figure.name}",
    )


def _panels(figures: dict[str, list[Figure]]) -> dict[str, Any]:
    """What charts.js draws: `columns` of numbers, each once, and the panels, whose `x` and `y` are places in there."""
    columns: dict[str, int] = {}

    def place(column: list[Any]) -> int:
        return columns.setdefault(_json(column), len(columns))

    found = {}
    for group in figures.values():
        for figure in group:
            for number, panel in enumerate(figure.panels):
                traces = [trace | {"x": place(trace["x"]), "y": place(trace["y"])} for trace in panel.traces]
                shown = {"title": panel.title, "x": panel.x, "y": panel.y, "traces": traces}
                found[f"{figure.name}-{number}"] = {**shown, **panel.options}
    return {"columns": [json.loads(column) for column in columns], "panels": found}


def _settings(run: Run) -> Markup:
    documents = {name: run.documents[name] for name in DOCUMENTS} | {"params": run.params}
    return join(
        element(
            "details",
            element("summary", both(f"run.{name}")),
            tables.settings(f"run.{name}", document),
            open="" if name == "lineage" else None,
        )
        for name, document in documents.items()
    )


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
