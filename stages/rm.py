"""The reward model: a LoRA adapter and a scalar head that prefer the better of two answers.

python -m stages.rm --help
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import Field

from stages.models import base_model, reward, stack
from stages.models.lora import LoraConfig
from stages.runtime import atomic, params, processes, resume
from stages.runtime.command import command
from stages.text import encoding, records
from stages.training import evaluation, length_grouping, trainer
from stages.training.config import TrainingConfig


class RmConfig(TrainingConfig):
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
    frozen_base = base_model.read(base)
    trainer.check_processes(config, frozen_base.model.dtype)
    first = processes.is_first()

    with resume.folder("rm", [seed, config.model_dump()], [train, validate, base]) as state:
        from datasets import Dataset
        from peft import get_peft_model
        from transformers import set_seed
        from trl import RewardConfig, RewardTrainer

        set_seed(seed)
        tokenizer = frozen_base.tokenizer()
        encoded = [encode(tokenizer, pair, config) for pair in pairs]
        encoded_held_out = [encode(tokenizer, pair, config) for pair in held_out]
        lengths = [max(map(len, pair.row().values())) for pair in encoded]
        order = length_grouping.length_grouped_order(lengths, config.batch_size, config.num_train_epochs, seed)

        model = reward.in_float32(frozen_base.reward_model())
        lora = config.lora.fit(model, "rm").config(task_type="SEQ_CLS", modules_to_save=["score"])
        model = get_peft_model(model, lora)
        common = trainer.arguments(
            config, frozen_base.model.dtype, frozen_base.model.gradient_checkpointing, seed, state
        )
        measures = ["loss", "accuracy", "margin"]
        run = evaluation.with_token_weighted_eval(RewardTrainer, measures, preference_loss(config))(
            model=model,
            args=trainer.on_one_gpu(
                RewardConfig(
                    **common,
                    max_length=None,  # a length here would drop pairs; they are cut above instead
                    disable_dropout=False,
                    center_rewards_coefficient=config.center_rewards_coefficient or None,
                )
            ),
            train_dataset=Dataset.from_list([encoded[i].row() for i in order]),
            eval_dataset=Dataset.from_list([pair.row() for pair in encoded_held_out]),
            processing_class=tokenizer,
            callbacks=trainer.callbacks(state),
        )
        trainer.train(run, state, len(order))
        both_sides = 2 * config.per_device_train_batch_size  # as many rows as a batch of pairs has
        # on all processes: a base may be sharded
        scores = score_pairs(run.model, encoded_held_out, held_out, tokenizer.pad_token_id, both_sides)
        if not first:
            return

        outcome = trainer.write_curves(run, log, CURVE, EVAL_CURVE, len(pairs) / config.batch_size)
        atomic.write_jsonl(log / "scores.jsonl", scores)
        margins = [row["chosen"] - row["rejected"] for row in scores]
        shorter = [m for m, row in zip(margins, scores, strict=True) if row["chosen_length"] <= row["rejected_length"]]
        in_order = [lengths[i] for i in order]
        atomic.write_json(
            log / "metrics.json",
            {
                "pairs": {"train": len(pairs), "validate": len(held_out)},
                "padding_share": round(length_grouping.padding_share(in_order, config.per_device_train_batch_size), 4),
                **outcome,
                "eval_accuracy": round(sum(m > 0 for m in margins) / len(margins), 4),
                "eval_margin": round(sum(margins) / len(margins), 4),
                # A model that only counts characters is right on the long ones and wrong on these.
                "eval_accuracy_chosen_not_longer": round(sum(m > 0 for m in shorter) / max(1, len(shorter)), 4),
                "pairs_chosen_not_longer": len(shorter),
            },
        )
        with atomic.folder(to) as folder:
            stack.save(run.model, "default", "reward", frozen_base, [], folder)
            reward.save_head(run.model, folder)


CURVE = ("step", "epoch", "loss", "grad_norm", "learning_rate", "accuracy", "margin")
EVAL_CURVE = ("step", "epoch", "eval_loss", "eval_accuracy", "eval_margin")


class EncodedPair(NamedTuple):
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    def row(self) -> dict[str, list[int]]:
        return {"chosen_ids": [*self.prompt, *self.chosen], "rejected_ids": [*self.prompt, *self.rejected]}


def encode(tokenizer: Any, pair: records.Pair, config: RmConfig) -> EncodedPair:
    limit = config.max_target_length
    return EncodedPair(
        encoding.encode_prompt(tokenizer, pair.history, pair.instruction, config.max_source_length, "rm").ids,
        encoding.encode_answer(tokenizer, pair.chosen, limit).ids,
        encoding.encode_answer(tokenizer, pair.rejected, limit).ids,
    )


def preference_loss(config: RmConfig) -> Callable[[Any, Any], Any]:
    """(model, batch of b pairs) → [b, 4]: 1, the loss that the trainer minimises, whether it is right, the margin."""

    def measure(model: Any, batch: Any) -> Any:
        import torch

        chosen, rejected = model(**batch, use_cache=False).logits.float().squeeze(-1).chunk(2)
        margin = chosen - rejected
        loss = -torch.nn.functional.logsigmoid(margin) + config.center_rewards_coefficient * (chosen + rejected) ** 2
        return torch.stack([torch.ones_like(loss), loss, (margin > 0).to(loss.dtype), margin], dim=1)

    return measure


def score_pairs(
    model: Any, encoded: list[EncodedPair], pairs: list[records.Pair], pad: int, batch_size: int
) -> list[dict[str, Any]]:
    """Scores and character lengths of both answers of each held-out pair."""
    model.eval()
    prompts = [pair.prompt for pair in encoded for _ in range(2)]
    answers = [answer for pair in encoded for answer in (pair.chosen, pair.rejected)]
    scores = reward.score(model, reward.trained_head(model), prompts, answers, pad, batch_size)
    return [
        {
            "chosen": round(scores[2 * i], 4),
            "rejected": round(scores[2 * i + 1], 4),
            "chosen_length": len(pair.chosen),
            "rejected_length": len(pair.rejected),
        }
        for i, pair in enumerate(pairs)
    ]


if __name__ == "__main__":
    typer.run(main)
