"""PPO against a reward that counts characters: how much of what PPO gained is length?

python -m controls.length_only --help
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
    """Train PPO with the parameters of the run and the number of characters as the reward."""
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "ppo", PpoConfig)
    tokenizer = judges.check(base, [gold]).tokenizer()

    def new_trainer(**arguments: Any) -> Any:
        from controls.watched_ppo import CharacterTrainer

        return CharacterTrainer(tokenizer, gold=gold, **arguments)

    inputs = ppo.Inputs(train, validate, base, sft, proxy)
    ppo.run("controls-length_only", inputs, to, log, seed, config, new_trainer, [gold, *CODE])


if __name__ == "__main__":
    typer.run(main)
