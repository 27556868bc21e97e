"""The reward model: a LoRA adapter and a scalar head that prefer the better of two answers.

python -m stages.rm --help
"""

from pathlib import Path
from typing import Annotated

import typer

from stages.models import base_model, reward, stack
from stages.preference import agreement, pairs
from stages.preference.config import RmConfig
from stages.preference.reward_loss import MEASURED, reward_loss
from stages.runtime import atomic, params, processes, resume
from stages.runtime.command import command
from stages.text import held_out, records
from stages.training import length_grouping, trainer, weighted


@command
def main(
    train: Annotated[Path, typer.Option(help="preference pairs (JSON lines)")],
    validate: Annotated[Path, typer.Option(help="held-out preference pairs")],
    base: Annotated[Path, typer.Option(help="folder of the base model")],
    to: Annotated[Path, typer.Option(help="folder of the adapter and the head")],
    log: Annotated[Path, typer.Option(help="folder of the curves, the metrics and the held-out pairs' scores")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Train the reward model on the preference pairs."""
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "rm", RmConfig)
    training = records.read_pairs(train)
    choosing, reported = held_out.parts(records.read_pairs(validate))
    frozen_base = base_model.read(base)
    processes.announce("rm")
    trainer.share(config, frozen_base.model.dtype)
    first = processes.is_first()

    with resume.folder("rm", [seed, config.model_dump()], [train, validate, base]) as state:
        from peft import get_peft_model
        from transformers import set_seed

        from stages.models import fused_lora
        from stages.preference import batches

        set_seed(seed)
        tokenizer = frozen_base.tokenizer()
        pad = tokenizer.pad_token_id
        in_order = length_grouping.in_training_order(
            pairs.encode(tokenizer, training, config), pairs.rows_of, config, seed
        )

        model = reward.in_float32(frozen_base.reward_model(processes.device()))
        model.config.get_text_config().pad_token_id = pad
        lora = config.lora.fit(model, "rm").config(task_type="SEQ_CLS", modules_to_save=["score"])
        model = fused_lora.fuse(get_peft_model(model, lora))
        run = weighted.trainer(
            reward_loss(config.center_rewards_coefficient),
            ["loss", *MEASURED],
            step_weight=config.batch_size,
            model=model,
            args=trainer.arguments(config, frozen_base.model, seed, state),
            train_dataset=in_order,
            eval_dataset=length_grouping.by_length(pairs.encode(tokenizer, choosing, config), pairs.rows_of),
            data_collator=batches.collator(model, in_order[0], pad),
            callbacks=trainer.callbacks(state),
        )
        trainer.train(run, state)
        # on all processes: a base may be sharded
        scores = agreement.score_pairs(run.model, pairs.encode(tokenizer, reported, config), reported, pad)
        if not first:
            return

        outcome = trainer.write_curves(run, log, len(training) / config.batch_size, MEASURED)
        atomic.write_jsonl(log / "scores.jsonl", scores)
        atomic.write_json(
            log / "metrics.json",
            {
                "pairs": {"train": len(training), "choosing": len(choosing), "reported": len(reported)},
                "padding_share": length_grouping.padding_share(
                    in_order, pairs.rows_of, config.per_device_train_batch_size
                ),
                **outcome,
                **agreement.summary(scores),
            },
        )
        with atomic.folder(to) as folder:
            reward.save_head(run.model, folder)
            stack.save(run.model, "default", "reward", frozen_base, [], folder)


if __name__ == "__main__":
    typer.run(main)
