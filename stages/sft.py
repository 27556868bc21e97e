"""Supervised fine-tuning: a LoRA adapter that answers like the doctor.

python -m stages.sft --help
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.models import base_model, stack
from stages.models.lora import LoraConfig
from stages.runtime import atomic, params, processes, resume
from stages.runtime.command import command
from stages.text import encoding, held_out, records
from stages.training import length_grouping, samples, trainer, weighted
from stages.training.config import TrainingConfig


class SftConfig(TrainingConfig):
    num_train_epochs: params.Epochs = 4
    learning_rate: params.LearningRate = 4.0e-3
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
    given = [sample for file in files for sample in file]
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
        encoded = [encode(tokenizer, sample, config) for sample in given]
        dev_rows, train_rows = held_out.split(dialogues, config.dev_ratio, data_seed)
        in_order = length_grouping.in_training_order([encoded[i] for i in train_rows], samples.rows_of, config, seed)

        model = frozen_base.causal_lm()
        model = get_peft_model(model, config.lora.fit(model, "sft").config(task_type="CAUSAL_LM"))
        run = weighted.trainer(
            answer_loss,
            ["loss"],
            step_weight=sum(len(sample.answer.ids) for sample in in_order) / len(in_order) * config.batch_size,
            model=fused_lora.fuse(model),
            args=trainer.arguments(config, frozen_base.model, seed, state),
            train_dataset=in_order,
            eval_dataset=length_grouping.by_length([encoded[i] for i in dev_rows], samples.rows_of),
            data_collator=partial(samples.collate, pad=tokenizer.pad_token_id),
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
                    in_order, samples.rows_of, config.per_device_train_batch_size
                ),
                "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
                **outcome,
            },
        )
        with atomic.folder(to) as folder:
            stack.save(model, "default", "sft", frozen_base, [], folder)


def encode(tokenizer: Any, sample: records.Sample, config: SftConfig) -> samples.EncodedSample:
    return samples.EncodedSample(
        encoding.encode_prompt(tokenizer, sample.history, sample.instruction, config.max_source_length, "sft"),
        encoding.encode_answer(tokenizer, sample.output, config.max_target_length),
    )


def answer_loss(model: Any, batch: dict[str, Any]) -> Any:
    """[b, 2]: how many tokens each answer has, and their negative log-likelihood in all.

    Only the positions that predict an answer's token go through the LM head. No mask is needed: no
    token attends to the padding after it.

    Args:
        batch: as `samples.collate` gives it.
    """
    import torch

    from stages.models import forward

    ids, sample, tokens = batch["ids"], batch["sample"], batch["tokens"]
    read = sample >= 0
    with forward.head_reads(model, read):
        logits = model(input_ids=ids, use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(logits.float(), batch["labels"][read], reduction="none")
    sums = losses.new_zeros(len(tokens)).index_add(0, sample[read], losses)
    return torch.stack([tokens.to(sums.dtype), sums], dim=1)


if __name__ == "__main__":
    typer.run(main)
