"""The scores of the last run as a small table, and what each stage cost.

python -m stages.results
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from stages.runtime.command import command, costs

COLUMNS = ("rouge-1", "rouge-2", "rouge-l", "bleu-4", "response_length", "distinct-2")


@command
def main(
    headline: Annotated[Path, typer.Option(help="the report stage's numbers")] = Path("reports/metrics.json"),
    page: Annotated[Path, typer.Option(help="the report")] = Path("reports/index.html"),
) -> None:
    """Print the scores of base, sft and ppo, the cost of each stage, and where the report is."""
    print(table(headline))
    spent = costs()
    if spent:
        print(f"\n{'stage':16}{'seconds':>10}{'peak MiB':>10}")
        for stage, cost in spent.items():
            print(f"{stage:16}{cost['seconds']:10.1f}{cost['peak_mib']:10.0f}")
    print(f"\n{page.resolve().as_uri() if page.exists() else f'{page} is not there yet'}")


def table(headline: Path) -> str:
    """The scores of base, sft and ppo, a line each."""
    models = json.loads(headline.read_text(encoding="utf-8"))
    text = f"{'':8}" + "".join(f"{name:>17}" for name in COLUMNS) + "\n"
    for model in ("base", "sft", "ppo"):
        text += f"{model:8}" + "".join(f"{models[model][name]:17.2f}" for name in COLUMNS) + "\n"
    return text


if __name__ == "__main__":
    typer.run(main)
