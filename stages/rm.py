"""The reward model: a LoRA adapter and a scalar head that prefer the better of two answers.

python -m stages.rm --help
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from stages.models import base_model, reward, stack
from stages.models.lora import LoraConfig
from stages.runtime import atomic, curves, environment, params, processes, resume
from stages.runtime.command import command
from stages.text import encoding, records
from stages.training import evaluation, length_grouping, supervised


class RmConfig(supervised.TrainingConfig):
    num_train_epochs: params.Epochs = 2
    learning_rate: params.LearningRate = 5.0e-4
    logging_steps: params.Steps = 5
    eval_steps: params.Steps = 20
    max_source_length: params.Tokens = 256
    """Tokens of history and question; the oldest rounds go first, the question survives."""
    max_target_length: params.Tokens = 256
    """Tokens of an answer, its EOS included; a longer answer is cut at its end."""
    center_rewards_coefficient: Annotated[float, Field(ge=0, le=1000)] = 0.01
    """Weight of a term that keeps scores centred on 0 (Eisenstein et al. 2023); 0 leaves it out."""
    lora: LoraConfig = LoraConfig(r=8)
    """The adapter."""


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
    pairs, held_out = records.read_pairs(train), records.read_pairs(validate)
    origin = base_model.read(base)
    supervised.check_processes(config, origin.model.dtype)
    first = processes.is_first()

    with resume.folder("rm", [seed, config.model_dump()], [train, validate, base]) as state:
        from datasets import Dataset
        from peft import get_peft_model
        from transformers import set_seed
        from trl import RewardConfig, RewardTrainer

        set_seed(seed)
        tokenizer = origin.tokenizer()
        encoded = [encode(tokenizer, pair, config) for pair in pairs]
        encoded_out = [encode(tokenizer, pair, config) for pair in held_out]
        lengths = [max(len(e["chosen_ids"]), len(e["rejected_ids"])) for e in encoded]
        order = length_grouping.epochs(lengths, config.batch_size, config.num_train_epochs, seed)

        model = reward.in_float32(origin.reward_model())
        lora = config.lora.fit(model, "rm").config(task_type="SEQ_CLS", modules_to_save=["score"])
        model = get_peft_model(model, lora)
        common = supervised.arguments(config, origin.model.dtype, origin.model.gradient_checkpointing, seed, state)
        trainer = evaluation.exact(RewardTrainer, ["loss", "accuracy", "margin"], preference_loss(config))(
            model=model,
            args=supervised.on_one_gpu(
                RewardConfig(
                    **common,
                    max_length=None,  # a length here would drop pairs; they are cut above instead
                    disable_dropout=False,
                    center_rewards_coefficient=config.center_rewards_coefficient or None,
                )
            ),
            train_dataset=Dataset.from_list([encoded[i] for i in order]),
            eval_dataset=Dataset.from_list(encoded_out),
            processing_class=tokenizer,
            callbacks=supervised.callbacks(state),
        )
        supervised.keep_float32(model)
        if len(trainer.train_dataset) != len(order):
            raise RuntimeError(f"the trainer took {len(trainer.train_dataset)} of {len(order)} pairs")
        supervised.train(trainer, state)
        side_by_side = 2 * config.per_device_train_batch_size  # as many as while training, both of each pair
        # on all processes: a base may be sharded
        judged = judge(trainer.model, encoded_out, held_out, tokenizer.pad_token_id, side_by_side)
        if not first:
            return

        steps_per_epoch = len(pairs) / config.batch_size
        rows = supervised.rows(trainer, steps_per_epoch, CURVE, step_of="loss")
        evals = supervised.rows(trainer, steps_per_epoch, EVAL_CURVE, step_of="eval_loss")
        curves.write(log / "curve.csv", CURVE, rows)
        curves.write(log / "eval_curve.csv", EVAL_CURVE, evals)
        environment.write(log)

        atomic.write_jsonl(log / "scores.jsonl", judged)
        margins = [row["chosen"] - row["rejected"] for row in judged]
        shorter = [m for m, row in zip(margins, judged, strict=True) if row["chosen_length"] <= row["rejected_length"]]
        in_order = [lengths[i] for i in order]
        atomic.write_json(
            log / "metrics.json",
            {
                "pairs": {"train": len(pairs), "validate": len(held_out)},
                "padding_share": round(length_grouping.padding_share(in_order, config.per_device_train_batch_size), 4),
                "steps": trainer.state.global_step,
                "best_step": supervised.best_eval(evals)["step"],
                "eval_loss": round(supervised.best_eval(evals)["eval_loss"], 4),
                "eval_accuracy": round(sum(m > 0 for m in margins) / len(margins), 4),
                "eval_margin": round(sum(margins) / len(margins), 4),
                # A model that only counts characters is right on the long ones and wrong on these.
                "eval_accuracy_chosen_not_longer": round(sum(m > 0 for m in shorter) / max(1, len(shorter)), 4),
                "pairs_chosen_not_longer": len(shorter),
            },
        )
        with atomic.folder(to) as folder:
            stack.save(trainer.model, "default", "reward", origin, [], folder)
            reward.save_head(trainer.model, folder)


CURVE = ("step", "epoch", "loss", "grad_norm", "learning_rate", "accuracy", "margin")
EVAL_CURVE = ("step", "epoch", "eval_loss", "eval_accuracy", "eval_margin")


def encode(tokenizer: Any, pair: records.Pair, config: RmConfig) -> dict[str, list[int]]:
    prompt = encoding.encode_prompt(tokenizer, pair.history, pair.instruction, config.max_source_length, "rm").ids
    return {
        "chosen_ids": [*prompt, *encoding.encode_answer(tokenizer, pair.chosen, config.max_target_length).ids],
        "rejected_ids": [*prompt, *encoding.encode_answer(tokenizer, pair.rejected, config.max_target_length).ids],
    }


def preference_loss(config: RmConfig) -> Callable[[Any, Any], Any]:
    """(model, batch of b pairs) → [b, 4]: 1, the loss that the trainer minimises, whether it is right, the margin."""

    def measure(model: Any, batch: Any) -> Any:
        import torch

        chosen, rejected = model(**batch, use_cache=False).logits.float().squeeze(-1).chunk(2)
        margin = chosen - rejected
        loss = -torch.nn.functional.logsigmoid(margin) + config.center_rewards_coefficient * (chosen + rejected) ** 2
        return torch.stack([torch.ones_like(loss), loss, (margin > 0).to(loss.dtype), margin], dim=1)

    return measure


def judge(
    model: Any, encoded: list[dict[str, list[int]]], pairs: list[records.Pair], pad: int, batch_size: int
) -> list[dict[str, Any]]:
    """Scores and character lengths of both answers of each held-out pair."""
    sequences = [e[side] for e in encoded for side in ("chosen_ids", "rejected_ids")]
    values = reward.score_with_classifier(model, sequences, pad, batch_size)
    return [
        {
            "chosen": round(values[2 * i], 4),
            "rejected": round(values[2 * i + 1], 4),
            "chosen_length": len(pair.chosen),
            "rejected_length": len(pair.rejected),
        }
        for i, pair in enumerate(pairs)
    ]


if __name__ == "__main__":
    typer.run(main)
