"""Did PPO pay? What the controls wrote → one page in the report's look, and one table for Git.

python -m controls.report --help
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from controls import findings, inputs, options
from controls.findings import Comparison
from controls.models import MODELS, SUBJECT, kl_bound
from stages.page import compare_markdown, embedding, i18n, line_chart
from stages.page.formats import MISSING, fixed, span
from stages.page.i18n import LANGUAGES, Sentence, say
from stages.page.line_chart import Line
from stages.page.smoothing import smooth
from stages.page.tables import Cell, Table
from stages.page.templating import environment
from stages.page.verdict import Answer
from stages.report import ReportConfig
from stages.runtime import atomic, params
from stages.runtime.command import command

JUDGES = {"score": 0, "gold": 1}
"""Column of a curve → the colour of its line."""


@command
def main(
    controls: Annotated[Path, typer.Option(help="folder in which the controls left theirs")],
    answers: Annotated[Path, typer.Option(help="answers of a model to the test questions, for their dialogues")],
    page: Annotated[Path, typer.Option(help="the page (HTML)")],
    table: Annotated[Path, typer.Option(help="the table (Markdown)")],
    params_file: options.Params,
) -> None:
    """Write the page and the table."""
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "report", ReportConfig)
    i18n.add(json.loads(Path(__file__).with_name("i18n.json").read_text(encoding="utf-8")))
    found = inputs.read(controls, answers, config.bootstrap_samples, seed)
    compared = findings.compare(found, config.bootstrap_samples, seed)
    told = findings.answers(found, compared, config.bootstrap_samples, seed)
    tables = [values(compared), differences(compared)]
    atomic.write_text(table, markdown(told, tables, config.language))
    atomic.write_bytes(page, render(found, told, tables, config.language))
    print(page)


def values(compared: Comparison) -> Table:
    """One row per model: its distance from SFT and its means, with intervals."""
    rows = []
    for model in MODELS:
        if model.n:
            distance = Cell(Sentence("controls.at-most", {"value": fixed(kl_bound(model.n), 2)}))
        elif model.policy:
            kl = compared.kl[model.name]
            distance = Cell(fixed(kl.value, 2), span(kl, 2), style="strong")
        else:
            distance = Cell(fixed(0, 2) if model.name == "sft" else MISSING)
        means = [(compared.values[model.name][measure.name], measure.digits) for measure in compared.measures]
        cells = [Cell(fixed(mean.value, digits), span(mean, digits), style="strong") for mean, digits in means]
        rows.append([Cell(findings.label(model.name)), distance, *cells])
    return Table("controls-values", [*_head(), Sentence("controls.kl"), *_measures(compared)], rows)


def differences(compared: Comparison) -> Table:
    """One row per other model: PPO less that model, with the interval and what it shows."""
    rows = []
    for model, changes in compared.differences.items():
        cells = [
            Cell(fixed(changes[m.name].value, m.digits, sign=True), span(changes[m.name], m.digits, sign=True),
                 compared.mark(model, m), "strong")
            for m in compared.measures
        ]  # fmt: skip
        rows.append([Cell(findings.label(model)), *cells])
    return Table("controls-differences", [*_head(), *_measures(compared)], rows)


def _head() -> list[Sentence]:
    return [Sentence("controls.model")]


def _measures(compared: Comparison) -> list[Sentence]:
    return [Sentence(f"metric.{measure.name}") for measure in compared.measures]


def markdown(told: list[Answer], tables: list[Table], language: str) -> str:
    def text(sentence: Sentence) -> str:
        return say(sentence, language)

    lines = [f"# {text(Sentence('controls.title'))}", text(Sentence("controls.lead"))]
    lines.append("\n".join(
        f"- **{text(Sentence(f'verdict.{answer.name}'))}** {' '.join(map(text, [answer.short, *answer.because]))}"
        for answer in told
    ))  # fmt: skip
    for shown in tables:
        lines += [f"## {text(Sentence(f'table.{shown.name}'))}", compare_markdown.table(shown, language)]
    lines += [text(Sentence("controls.intervals")), text(Sentence("controls.own"))]
    return "\n\n".join(lines) + "\n"


def render(found: inputs.Found, told: list[Answer], tables: list[Table], language: str) -> bytes:
    """The whole page; it opens in `language` and holds both."""
    from jinja2 import ChoiceLoader, FileSystemLoader

    script = f"(() => {{\n{embedding.asset('look.js')}look();\n}})();\n"
    title = Sentence("controls.title")
    words = {key: texts for key, texts in i18n.dictionary().items() if key.startswith("page.")}
    words |= {"page.title": {each: say(title, each) for each in LANGUAGES}}
    templates = environment(None)
    templates.loader = ChoiceLoader([templates.loader, FileSystemLoader(Path(__file__).parent)])  # type: ignore[list-item]
    html = templates.get_template("controls.html.jinja").render(
        language=language,
        title=title,
        page_title=words["page.title"][language],
        policy=embedding.policy(script),
        style=embedding.asset("page.css") + embedding.asset("compare.css"),
        answers=told,
        tables=tables,
        drawings={"updates": over_updates(found), "frontier": over_distance(found)},
        legend=[(Sentence(f"controls.curve.{name}"), line_chart.colour(at)) for name, at in JUDGES.items()],
        words=embedding.json_text(words),
        script=script,
    )  # fmt: skip
    return html.encode("utf-8", errors="replace")


def over_updates(found: inputs.Found) -> Any:
    """What PPO sampled, by both reward models: raw values faint, their trend over them."""
    curve = found.curves[SUBJECT]
    lines = []
    for faint in (True, False):
        for name, at in JUDGES.items():
            y = curve[name] if faint else smooth(curve[name])
            lines.append(Line(name, at, line_chart.segments(curve["step"], y), faint))
    return line_chart.draw(lines)


def over_distance(found: inputs.Found) -> Any:
    """Test answers: a line for best of n, a point for each policy."""
    lines = []
    means = findings.frontier(found)
    for judge, at in (("reward", JUDGES["score"]), ("gold", JUDGES["gold"])):
        points = [(kl_bound(n), mean[judge]) for n, mean in means.items()]
        lines.append(Line("best of n", at, [points]))
        for model in MODELS:
            if model.policy:
                columns = found.numbers[model.name]
                x, y = (sum(filter(None, columns[key])) / len(columns[key]) for key in ("kl", judge))
                lines.append(Line(model.name, at, [[(x, y)]]))
    return line_chart.draw(lines)


if __name__ == "__main__":
    typer.run(main)
