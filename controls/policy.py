"""What three controls share: PPO on the first half of the pairs, judged by the reward model of the second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from controls import judges, options
from stages import ppo
from stages.models.base_model import Base
from stages.rl.config import PpoConfig
from stages.runtime import params
from stages.runtime.command import command


def watched(base: Base, gold: Path, **arguments: Any) -> Any:
    """A trainer that is judged by the reward model in `gold`, and rewarded by the one that PPO is given."""
    from controls.watched_ppo import WatchedTrainer

    return WatchedTrainer(gold, **arguments)


def trained_by(
    control: Path,
    summary: str,
    change: Callable[[PpoConfig], PpoConfig] = lambda config: config,
    new_trainer: Callable[..., Any] = watched,
) -> Callable[..., None]:
    """The command of a control.

    Args:
        control: its file, whose stem names it; an edit of it discards the state of an unfinished run.
        summary: what `--help` says.
        change: the parameters of the run → those of the control.
        new_trainer: (the base, the judge's folder, the arguments of `rl.trainer.Trainer` by name) → the trainer.
    """

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
        seed = params.load(params_file, "seed", int)
        config = change(params.load(params_file, "ppo", PpoConfig))
        frozen_base = judges.check(base, [gold])
        inputs = ppo.Inputs(train, validate, base, sft, proxy)
        code = [control, Path(__file__), Path(__file__).with_name("watched_ppo.py")]
        ppo.run(
            f"controls-{control.stem}", inputs, to, log, seed, config,
            lambda **arguments: new_trainer(frozen_base, gold, **arguments), [gold, *code],
        )  # fmt: skip

    main.__doc__ = summary
    return command(main)
