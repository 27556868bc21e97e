"""The scores of the last run as a small table, and what each stage cost.

python -m stages.results
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from stages.metrics.definitions import BASELINE, METRICS, MODELS
from stages.runtime.command import command, costs


@command
def main(
    headline: Annotated[Path, typer.Option(help="the report stage's numbers")] = Path("reports/metrics.json"),
    page: Annotated[Path, typer.Option(help="the report")] = Path("reports/index.html"),
) -> None:
    """Print the scores of the models, the cost of each stage, and where the report is."""
    print(table(headline))
    spent = costs()
    if spent:
        print(f"\n{'stage':16}{'seconds':>10}{'peak MiB':>10}")
        for stage, cost in spent.items():
            print(f"{stage:16}{cost['seconds']:10.1f}{cost['peak_mib']:10.0f}")
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


if __name__ == "__main__":
    typer.run(main)
