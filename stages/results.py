"""The scores of the last run as a small table, two questions with all answers, and what each stage cost.

python -m stages.results
"""

import json
from math import nan
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.metrics.definitions import BASELINE, METRICS, MODELS
from stages.runtime.command import command, costs
from stages.runtime.errors import printable
from stages.text import json_files


@command
def main(
    headline: Annotated[Path, typer.Option(help="the report stage's numbers")] = Path("reports/metrics.json"),
    answers: Annotated[Path, typer.Option(help="folder of the answers to the test questions")] = Path(
        "reports/answers"
    ),
    page: Annotated[Path, typer.Option(help="the report")] = Path("reports/index.html"),
) -> None:
    """Print the scores, two questions with all answers, the cost of each stage, and where the report is."""
    print(table(headline))
    print(examples(answers))
    spent = costs()
    if spent:
        print(f"\n{'stage':16}{'seconds':>10}{'CPU s':>10}{'peak MiB':>10}")
        for stage, cost in spent.items():
            print(f"{stage:16}{cost['seconds']:10.1f}{cost.get('cpu_seconds', nan):10.1f}{cost['peak_mib']:10.0f}")
    print(f"\n{page.resolve().as_uri() if page.exists() else f'{page} is not there yet'}")


def table(headline: Path) -> str:
    """A line per metric that the run has, a column per model and for the nearest training question's answer."""
    found = json.loads(headline.read_text(encoding="utf-8"))
    models = [name for name in (*MODELS, BASELINE) if name in found]
    lines = [f"{'':22}" + "".join(f"{name:>12}" for name in models)]
    for metric in METRICS:
        if all(metric.name in found[model] for model in models):
            values = "".join(f"{found[model][metric.name]:12.{metric.digits}f}" for model in models)
            lines.append(f"{metric.en:22}{values}")
    return "\n".join(lines)


def examples(folder: Path) -> str:
    """The answers to the first question of the second and the third test dialogue; nothing where there are none.

    The README shows that of the first. No answer decides which questions are shown.
    """
    rows: dict[str, list[dict[str, Any]]] = {}
    for model in MODELS:
        if (file := folder / f"{model}.jsonl").is_file():
            rows[model] = [row for _, row in json_files.read_lines(file)]
    first = next(iter(rows.values()), [])
    openings = [number for number, row in enumerate(first) if not row["history"]][1:3]
    lines = []
    for number in openings:
        asked = first[number]
        lines += ["", f"{'question':10}{printable(asked['instruction'])}"]
        lines += [f"{model:10}{printable(found[number]['predict'])}" for model, found in rows.items()]
        lines.append(f"{'reference':10}{printable(asked['label'])}")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
