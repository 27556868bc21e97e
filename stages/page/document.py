"""Numbers, figures, samples → one HTML file that needs nothing else and lets nothing in.

Data are embedded as JSON in scripts that no browser runs, with every character escaped that could end one. A policy in
the head allows the scripts of this package by their hash, no other script, and no request to anywhere.
"""

import json
from pathlib import Path
from typing import Any

from stages.page import embedding, environments, findings, reference_results, tables
from stages.page.answers import browser
from stages.page.comparison import Comparison
from stages.page.figures import Figure
from stages.page.health import Check
from stages.page.i18n import LANGUAGES, Sentence, dictionary, say
from stages.page.inputs import Run
from stages.page.probes import Probes
from stages.page.templating import environment
from stages.page.verdict import Answer

SCRIPTS = ("look.js", "saving.js", "charts.js", "browser.js")
SPOKEN = (
    "axis.",
    "browser.",
    "chart.",
    "metric.",
    "model.",
    "pairs.",
    "panel.",
    "page.dark",
    "page.light",
    "page.language",
    "page.sections",
)  # what the scripts say


def content(
    run: Run,
    comparison: Comparison,
    answers: list[Answer],
    probes: Probes | None,
    checks: list[Check],
    title: str | None,
) -> dict[str, Any]:
    """What page and summary tell in words and tables."""
    data = run.params["data"]
    setup = {"model": run.params["model"]["name"], "dialogues": data["dialogues"], "preferences": data["preferences"]}
    without = "" if probes else "-sft"
    published = "page.interval-published" if reference_results.comparable(run.documents["data"]) else "page.interval"
    return {
        "title": title or Sentence(f"page.title{without}", {"data": Path(data["dialogues"]).name}),
        "lead": Sentence(f"page.lead{without}"),
        "setup": Sentence(f"run.setup{without}", setup | {"seed": str(run.params["seed"])}),
        "count": len(run.samples),
        "answers": answers,
        "scores": tables.scores(run, comparison),
        "intervals": Sentence(published, {"bigrams": str(comparison.distinct_size)}),
        "differences": tables.differences(comparison),
        "probes": {
            "reward_model": findings.reward_model(probes, run.closing),
            "ppo": findings.ppo(probes),
            "rewards": tables.probes(probes, run.closing),
            "phrases": tables.picked_up(probes),
        }
        if probes
        else None,
        "health": tables.health(checks),
        "contamination": tables.contamination(run),
        "mixed_environments": environments.warning(run.environments),
        "settings": [tables.settings(document, f"run-{name}") for name, document in run.documents.items()]
        + [tables.settings(run.environments, "run-environments"), tables.settings(run.params, "run-params")],
    }


def render(told: dict[str, Any], run: Run, figures: dict[str, list[Figure]], plotly: str, language: str) -> bytes:
    """The whole page.

    Args:
        told: what `content` gave.
        figures: by section: `results`, `losses`, `behaviour`, `diagnostics`, `reward_model`; those of PPO and of the
            reward model are left out where there are none.
        plotly: plotly's JavaScript.
    """
    script = "(() => {\n" + "\n".join(embedding.asset(name) for name in SCRIPTS) + "})();\n"
    title = {"page.title": {each: say(told["title"], each) for each in LANGUAGES}}
    words = {key: texts for key, texts in dictionary().items() if key.startswith(SPOKEN)} | title
    page = environment(None).get_template("page.html.jinja").render(
        told,
        language=language,
        page_title=title["page.title"][language],
        policy=embedding.policy(script, plotly),
        style=embedding.asset("page.css"),
        figures=figures,
        words=embedding.json_text(words),
        panels=embedding.json_text(_panels(figures)),
        samples=embedding.json_text(browser(run)),
        plotly=plotly,
        script=script,
    )  # fmt: skip
    # Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark.
    return page.encode("utf-8", errors="replace")


def _panels(figures: dict[str, list[Figure]]) -> dict[str, Any]:
    """What charts.js draws: `columns` of numbers, each once, and the panels, whose `x` and `y` are places in there."""
    columns: dict[str, int] = {}

    def place(column: list[Any]) -> int:
        return columns.setdefault(embedding.json_text(column), len(columns))

    found = {}
    for group in figures.values():
        for figure in group:
            for number, panel in enumerate(figure.panels):
                traces = [trace | {"x": place(trace["x"]), "y": place(trace["y"])} for trace in panel.traces]
                shown = {"title": panel.title, "x": panel.x, "y": panel.y, "traces": traces}
                found[f"{figure.name}-{number}"] = {**shown, **panel.options}
    return {"columns": [json.loads(column) for column in columns], "panels": found}
