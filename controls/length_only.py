"""PPO against a reward that counts characters: how much of what PPO gained is length?

python -m controls.length_only --help
"""

from pathlib import Path
from typing import Any

import typer

from controls import policy
from stages.models.base_model import Base


def rewarded_by_length(base: Base, gold: Path, **arguments: Any) -> Any:
    from controls.watched_ppo import CharacterTrainer

    return CharacterTrainer(base.tokenizer(), gold=gold, **arguments)


main = policy.trained_by(
    Path(__file__),
    "Train PPO with the parameters of the run and the number of characters as the reward.",
    new_trainer=rewarded_by_length,
)

if __name__ == "__main__":
    typer.run(main)
