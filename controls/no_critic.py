"""PPO without a critic: does the value head pay?

python -m controls.no_critic --help
"""

from pathlib import Path
from typing import Any

import typer

from controls import judges, options
from stages import ppo
from stages.rl.config import PpoConfig
from stages.runtime import params
from stages.runtime.command import command

CODE = [Path(__file__), Path(__file__).with_name("watched_ppo.py")]


@command
def main(
    train: options.Train,
    validate: options.Validate,
    base: options.Base,
    sft: options.Sft,
    proxy: options.Proxy,
    gold: options.Gold,
    to: options.To,
    log: options.Log,
    params_file: options.Params,
) -> None:
    """Train PPO with every value 0 and the whole return of an answer as the advantage of each of its tokens."""
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "ppo", PpoConfig).replace(vf_coef=0.0, lam=1.0, value_head_init="zero")
    judges.check(base, [gold])

    def new_trainer(**arguments: Any) -> Any:
        from controls.watched_ppo import WatchedTrainer

        return WatchedTrainer(gold, **arguments)

    inputs = ppo.Inputs(train, validate, base, sft, proxy)
    ppo.run("controls-no_critic", inputs, to, log, seed, config, new_trainer, [gold, *CODE])


if __name__ == "__main__":
    typer.run(main)
