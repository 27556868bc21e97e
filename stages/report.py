"""What the other stages wrote → one page for a browser, one summary for a pull request, and what Git keeps of a run.

python -m stages.report --help
"""

from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field

from stages.runtime import params
from stages.runtime.command import command


class ReportConfig(params.Section):
    """How the results are presented."""

    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The title of page and summary; null names the dialogues."""
    smoothing: bool = True
    """Draw each training curve's trend (the tutorial's moving average) over the raw values."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=10**6)] = 1000
    """Draws behind each interval and each difference between two models; fewer than 100 mean nothing."""
    language: Literal["en", "zh"] = "en"
    """The language that the page opens in, and the summary's."""


@command
def main(
    reports: Annotated[Path, typer.Option(help="folder in which the other stages left theirs")],
    page: Annotated[Path, typer.Option(help="the page (HTML)")],
    summary: Annotated[Path, typer.Option(help="the summary (Markdown)")],
    headline: Annotated[Path, typer.Option(help="the numbers to compare runs by (JSON)")],
    environment: Annotated[Path, typer.Option(help="what the stages ran on (JSON)")],
    plots: Annotated[Path, typer.Option(help="folder of the tables that DVC plots (CSV)")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Write the report."""
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "report", ReportConfig)

    from plotly.offline import get_plotlyjs

    from stages.page import (
        comparison,
        document,
        environments,
        figures,
        health,
        inputs,
        probes,
        reward_model,
        tracked_outputs,
        verdict,
    )
    from stages.page import summary as short
    from stages.runtime import atomic

    # What was found: the models on the same samples, the reward model on held-out pairs, the probes, the curves.
    run = inputs.read(reports, params_file)
    compared = comparison.compare(run, config.bootstrap_samples, seed)
    rewards = reward_model.measure(run.pairs, config.bootstrap_samples, seed) if run.pairs else None
    probed = probes.measure(run, config.bootstrap_samples, seed) if run.probes else None
    checks = health.checks(run, rewards)
    answers = verdict.answers(run, compared, rewards, probed, checks)

    # How it is shown.
    drawn = {
        "results": figures.results(run, compared),
        "losses": figures.losses(run, config.smoothing),
        "diagnostics": figures.diagnostics(run, config.smoothing),
    }
    if rewards:
        drawn |= {
            "behaviour": figures.behaviour(run, config.smoothing),
            "reward_model": figures.reward_model(run, rewards, config.smoothing),
        }
    told = document.content(run, compared, answers, probed, checks, config.title)
    html = document.render(told, run, drawn, get_plotlyjs(), config.language)
    atomic.write_bytes(page, html)
    atomic.write_text(summary, short.markdown(told, config.language))

    # What Git keeps.
    atomic.write_json(headline, tracked_outputs.headline(run, compared, probed))
    atomic.write_json(environment, environments.compact(run.environments))
    atomic.write_csv(plots / "losses.csv", ("stage", "part", "step", "loss"), tracked_outputs.losses(run))
    atomic.write_csv(plots / "ppo.csv", inputs.PPO, tracked_outputs.updates(run))
    atomic.write_csv(
        plots / "models.csv", ("model", "metric", "value", "low", "high"), tracked_outputs.models(compared)
    )
    print(f"{page}: {len(run.samples)} samples, {len(html) / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
