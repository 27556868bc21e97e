"""Supervised fine-tuning: a LoRA adapter that answers like the doctor.

python -m stages.sft --help
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from stages.models import base_model, stack
from stages.models.lora import LoraConfig
from stages.runtime import atomic, params, processes, resume
from stages.runtime.command import command
from stages.text import encoding, held_out, records
from stages.training import length_grouping, trainer, weighted
from stages.training.config import TrainingConfig


class SftConfig(TrainingConfig):
    num_train_epochs: params.Epochs = 3
    per_device_train_batch_size: params.BatchSize = 8
    learning_rate: params.LearningRate = 4.0e-3
    logging_steps: params.Steps = 20
    eval_steps: params.Steps = 100
    max_source_length: params.Tokens = 256
    """Tokens of history and question; the oldest turns are dropped first, and the question is kept."""
    max_target_length: params.Tokens = 128
    """Tokens of the answer, its EOS included; a longer answer is cut at its end."""
    dev_ratio: params.Ratio = 0.05
    """Share of train + validation that is held out, whole dialogues: its loss chooses the checkpoint."""
    lora: LoraConfig = LoraConfig(r=32, alpha=64)
    """The adapter."""


@command
def main(
    train: Annotated[Path, typer.Option(help="training samples (JSON lines)")],
    validate: Annotated[Path, typer.Option(help="validation samples; train and dev are drawn from both")],
    base: Annotated[Path, typer.Option(help="folder of the base model")],
    to: Annotated[Path, typer.Option(help="folder of the adapter")],
    log: Annotated[Path, typer.Option(help="folder of the curves and the training metrics")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Fine-tune the base on the doctors' answers."""
    seed = params.load(params_file, "seed", int)
    data_seed = params.load(params_file, "data.seed", int)
    config = params.load(params_file, "sft", SftConfig)
    files = [records.read_samples(file) for file in (train, validate)]
    samples = [sample for file in files for sample in file]
    dialogues = [(number, dialogue) for number, file in enumerate(files) for dialogue in records.dialogues(file)]
    frozen_base = base_model.read(base)
    processes.announce("sft")
    trainer.share(config, frozen_base.model.dtype)
    first = processes.is_first()

    with resume.folder("sft", [seed, data_seed, config.model_dump()], [train, validate, base]) as state:
        from peft import get_peft_model
        from transformers import set_seed

        from stages.models import fused_lora

        set_seed(seed)
        tokenizer = frozen_base.tokenizer()
        encoded = [encode(tokenizer, sample, config) for sample in samples]
        dev_rows, train_rows = held_out.split(dialogues, config.dev_ratio, data_seed)
        lengths = [encoded[i].length for i in train_rows]
        order = length_grouping.length_grouped_order(lengths, config.batch_size, config.num_train_epochs, seed)
        in_order = [encoded[train_rows[i]] for i in order]

        model = frozen_base.causal_lm()
        model = get_peft_model(model, config.lora.fit(model, "sft").config(task_type="CAUSAL_LM"))
        run = weighted.trainer(
            answer_loss,
            ["loss"],
            step_weight=sum(len(sample.answer.ids) for sample in in_order) / len(order) * config.batch_size,
            model=fused_lora.fuse(model),
            args=trainer.arguments(config, frozen_base.model, seed, state),
            train_dataset=in_order,
            eval_dataset=sorted((encoded[i] for i in dev_rows), key=lambda sample: sample.length),
            data_collator=partial(collate, pad=tokenizer.pad_token_id),
            callbacks=trainer.callbacks(state),
        )
        trainer.train(run, state)
        if not first:
            return

        outcome = trainer.write_curves(run, log, len(train_rows) / config.batch_size)
        atomic.write_json(
            log / "metrics.json",
            {
                "samples": {"train": len(train_rows), "dev": len(dev_rows)},
                "samples_with_dropped_rounds": sum(e.prompt.dropped_turns > 0 for e in encoded),
                "samples_with_cut_question": sum(e.prompt.cut_tokens > 0 for e in encoded),
                "samples_with_cut_answer": sum(e.answer.cut_tokens > 0 for e in encoded),
                "padding_share": length_grouping.padding_share(
                    [sample.length for sample in in_order], config.per_device_train_batch_size
                ),
                "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
                **outcome,
            },
        )
        with atomic.folder(to) as folder:
            stack.save(model, "default", "sft", frozen_base, [], folder)


class EncodedSample(NamedTuple):
    prompt: encoding.Encoded
    answer: encoding.Encoded

    @property
    def length(self) -> int:
        return len(self.prompt.ids) + len(self.answer.ids)


def encode(tokenizer: Any, sample: records.Sample, config: SftConfig) -> EncodedSample:
    return EncodedSample(
        encoding.encode_prompt(tokenizer, sample.history, sample.instruction, config.max_source_length, "sft"),
        encoding.encode_answer(tokenizer, sample.output, config.max_target_length),
    )


def collate(samples: Sequence[EncodedSample], pad: int) -> dict[str, Any]:
    """ids [b, T], padded on the right, and answer [b, T]: whether the NEXT token is one of the answer's."""
    from stages.models import forward

    batch = forward.to_batch([sample.prompt.ids for sample in samples], [s.answer.ids for s in samples], pad, "cpu")
    return {"ids": batch.ids, "answer": batch.response.roll(-1, dims=1)}


def answer_loss(model: Any, batch: dict[str, Any]) -> Any:
    """[b, 2]: how many tokens each answer has, and their negative log-likelihood in all.

    Only the positions that predict an answer's token go through the LM head. No mask is needed: no
    token attends to the padding after it.
    """
    import torch

    from stages.models import forward

    ids, answer = batch["ids"], batch["answer"]
    with forward.head_reads(model, answer):
        logits = model(input_ids=ids, use_cache=False).logits
    labels = ids.roll(-1, dims=1)[answer]
    losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    row = answer.nonzero()[:, 0]
    sums = losses.new_zeros(len(ids)).index_add(0, row, losses)
    return torch.stack([answer.sum(1).to(sums.dtype), sums], dim=1)


if __name__ == "__main__":
    typer.run(main)
