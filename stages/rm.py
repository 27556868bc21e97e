"""The reward model: a LoRA adapter and a scalar head that prefer the better of two answers.

python -m stages.rm --help
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from pydantic import Field

from stages.models import base_model, reward, stack
from stages.models.lora import LoraConfig
from stages.runtime import atomic, params, processes, resume
from stages.runtime.command import command
from stages.text import encoding, held_out, records
from stages.training import length_grouping, trainer, weighted
from stages.training.config import TrainingConfig


class RmConfig(TrainingConfig):
    num_train_epochs: params.Epochs = 1
    learning_rate: params.LearningRate = 1.0e-3
    logging_steps: params.Steps = 5
    eval_steps: params.Steps = 20
    max_source_length: params.Tokens = 256
    """Tokens of history and question; the oldest turns are dropped first, and the question is kept."""
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
    pairs = records.read_pairs(train)
    choosing, reported = held_out.parts(records.read_pairs(validate))
    frozen_base = base_model.read(base)
    processes.announce("rm")
    trainer.share(config, frozen_base.model.dtype)
    first = processes.is_first()

    with resume.folder("rm", [seed, config.model_dump()], [train, validate, base]) as state:
        from peft import get_peft_model
        from transformers import set_seed

        set_seed(seed)
        tokenizer = frozen_base.tokenizer()
        encoded = [encode(tokenizer, pair, config) for pair in pairs]
        encoded_choosing = [encode(tokenizer, pair, config) for pair in choosing]
        lengths = [max(pair.lengths) for pair in encoded]
        order = length_grouping.length_grouped_order(lengths, config.batch_size, config.num_train_epochs, seed)
        in_order = [encoded[i] for i in order]

        model = reward.in_float32(frozen_base.reward_model())
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        lora = config.lora.fit(model, "rm").config(task_type="SEQ_CLS", modules_to_save=["score"])
        model = get_peft_model(model, lora)
        run = weighted.trainer(
            preference_loss(config),
            ["loss", *MEASURED],
            step_weight=config.batch_size,
            model=model,
            args=trainer.arguments(config, frozen_base.model, seed, state),
            train_dataset=in_order,
            eval_dataset=sorted(encoded_choosing, key=lambda pair: max(pair.lengths)),
            data_collator=partial(collate, pad=tokenizer.pad_token_id),
            callbacks=trainer.callbacks(state),
        )
        trainer.train(run, state)
        # on all processes: a base may be sharded
        encoded_reported = [encode(tokenizer, pair, config) for pair in reported]
        scores = score_pairs(run.model, encoded_reported, reported, tokenizer.pad_token_id)
        if not first:
            return

        outcome = trainer.write_curves(run, log, len(pairs) / config.batch_size, MEASURED)
        atomic.write_jsonl(log / "scores.jsonl", scores)
        margins = [row["chosen"] - row["rejected"] for row in scores]
        shorter = [m for m, row in zip(margins, scores, strict=True) if row["chosen_length"] <= row["rejected_length"]]
        atomic.write_json(
            log / "metrics.json",
            {
                "pairs": {"train": len(pairs), "choosing": len(choosing), "reported": len(reported)},
                "padding_share": padding_share(in_order, config.per_device_train_batch_size),
                **outcome,
                "eval_accuracy": round(sum(m > 0 for m in margins) / len(margins), 4),
                "eval_margin": round(sum(margins) / len(margins), 4),
                # A model that only counts characters is right on the long ones and wrong on these.
                "eval_accuracy_chosen_not_longer": round(sum(m > 0 for m in shorter) / max(1, len(shorter)), 4),
                "pairs_chosen_not_longer": len(shorter),
            },
        )
        with atomic.folder(to) as folder:
            reward.save_head(run.model, folder)
            stack.save(run.model, "default", "reward", frozen_base, [], folder)


MEASURED = ("accuracy", "margin")
"""Beside the loss."""
TOKENS_PER_BATCH = 2048
"""Of a pass that scores held-out answers, padding included."""


class EncodedPair(NamedTuple):
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the prompt with either answer."""
        return len(self.prompt) + len(self.chosen), len(self.prompt) + len(self.rejected)


def encode(tokenizer: Any, pair: records.Pair, config: RmConfig) -> EncodedPair:
    limit = config.max_target_length
    return EncodedPair(
        encoding.encode_prompt(tokenizer, pair.history, pair.instruction, config.max_source_length, "rm").ids,
        encoding.encode_answer(tokenizer, pair.chosen, limit).ids,
        encoding.encode_answer(tokenizer, pair.rejected, limit).ids,
    )


def collate(pairs: Sequence[EncodedPair], pad: int) -> dict[str, Any]:
    """All chosen answers, then all rejected ones, as rows padded on the right: the shorter half apart from the longer.

    ids: a list of [rows, T]; place [2b]: where among their rows each answer stands.
    """
    import torch

    from stages.models import forward

    prompts = [pair.prompt for pair in pairs] * 2
    answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    by_length = sorted(range(len(answers)), key=forward.lengths(prompts, answers).__getitem__)
    halves = [by_length[: len(pairs)], by_length[len(pairs) :]]
    ids = [batch.ids for _, batch in forward.batches(prompts, answers, halves, pad, "cpu")]
    return {"ids": ids, "place": torch.tensor(by_length).argsort()}


def preference_loss(config: RmConfig) -> weighted.Measure:
    """Gives [b, 4]: 1, the loss of Bradley and Terry with the centring term, whether the pair is right, the margin."""

    def measure(model: Any, batch: dict[str, Any]) -> Any:
        import torch

        # No mask: no token attends to the padding after it, and the score is read at the last token before it.
        scores = torch.cat([model(input_ids=ids, use_cache=False).logits for ids in batch["ids"]])
        chosen, rejected = scores.float().squeeze(-1)[batch["place"]].chunk(2)
        margin = chosen - rejected
        loss = -torch.nn.functional.logsigmoid(margin) + config.center_rewards_coefficient * (chosen + rejected) ** 2
        return torch.stack([torch.ones_like(loss), loss, (margin > 0).to(loss.dtype), margin], dim=1)

    return measure


def padding_share(pairs: Sequence[EncodedPair], batch_size: int) -> float:
    """Share of the positions that are padding when the pairs are collated in batches."""
    lengths = []
    for start in range(0, len(pairs), batch_size):
        lengths += sorted(length for pair in pairs[start : start + batch_size] for length in pair.lengths)
    return length_grouping.padding_share(lengths, batch_size)


def score_pairs(model: Any, encoded: list[EncodedPair], pairs: list[records.Pair], pad: int) -> list[dict[str, Any]]:
    """Scores and character lengths of both answers of each pair."""
    model.eval()
    prompts = [pair.prompt for pair in encoded for _ in ("chosen", "rejected")]
    answers = [answer for pair in encoded for answer in (pair.chosen, pair.rejected)]
    scores = reward.score(model, reward.trained_head(model), prompts, answers, pad, TOKENS_PER_BATCH)
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
