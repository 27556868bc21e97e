"""The frozen base model: the built-in `tiny` one is trained here, any other is resolved and recorded.

python -m stages.base --help
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.models import base_model, tiny
from stages.runtime import atomic, curves, params, portable, processes, resume
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.text import records
from stages.training import length_grouping, trainer
from stages.training.config import TrainingConfig


class BaseConfig(TrainingConfig):
    """How `tiny` is made: a plain language model on the training split's text, with no chat turns in it.

    Answering and stopping are what SFT teaches.
    """

    architecture: tiny.Architecture = tiny.Architecture()
    """The network's shape."""
    block_size: params.Tokens = 128
    """Tokens of one training sequence; texts are packed into them end to end."""
    num_train_epochs: params.Epochs = 16
    per_device_train_batch_size: params.BatchSize = 8
    learning_rate: params.LearningRate = 2.0e-3
    warmup_ratio: params.WarmupRatio = 0.05
    weight_decay: params.WeightDecay = 0.01
    logging_steps: params.Steps = 20
    eval_steps: params.Steps = 200


@command
def main(
    train: Annotated[Path, typer.Option(help="training samples (JSON lines)")],
    validate: Annotated[Path, typer.Option(help="validation samples, for the eval loss")],
    to: Annotated[Path, typer.Option(help="folder of the base model")],
    log: Annotated[Path, typer.Option(help="folder of the curves and the training metrics")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Make the base model's folder."""
    seed = params.load(params_file, "seed", int)
    model = params.load(params_file, "model", base_model.ModelConfig)
    portable.use(model.portable, model.cpu_threads)
    config = params.load(params_file, "base", BaseConfig)

    if model.name != base_model.TINY:  # nothing to train: resolve the name and say where the model is
        with atomic.folder(to) as folder:
            base_model.write_pointer(folder, model)
            base_model.read(folder).check()
        curves.write(log / "curve.csv", trainer.CURVE, [])
        curves.write(log / "eval_curve.csv", trainer.EVAL_CURVE, [])
        atomic.write_json(log / "metrics.json", {"trained": False, "identity": base_model.read(to).identity})
        return
    if model.dtype != "float32" or model.quantization != "none":
        raise UserError("params.yaml: model.name is `tiny`, which is trained in float32: set model.dtype to float32")

    processes.announce("base")
    with resume.folder("base", [seed, model.model_dump(), config.model_dump()], [train, validate]) as state:
        from transformers import Trainer, set_seed

        if model.deterministic:
            portable.fix_order()
        set_seed(seed)
        texts, held_out = corpus(train), corpus(validate)
        tokenizer = tiny.tokenizer(texts, config.architecture)
        network = tiny.network(config.architecture, tokenizer)
        blocks, eval_blocks = pack(tokenizer, texts, config.block_size), pack(tokenizer, held_out, config.block_size)

        run = Trainer(
            model=network,
            args=trainer.arguments(config, model, seed, state),
            train_dataset=length_grouping.in_training_order(blocks, rows_of, config, seed),
            eval_dataset=eval_blocks,
            data_collator=collate,
            callbacks=trainer.callbacks(state),
        )
        trainer.train(run, state)

        outcome = trainer.write_curves(run, log, len(blocks) / config.batch_size)
        atomic.write_json(
            log / "metrics.json",
            {
                "trained": True,
                "parameters": sum(p.numel() for p in network.parameters()),
                "tokens": len(blocks) * config.block_size,
                **outcome,
            },
        )
        set_seed(seed)
        tiny.renew_special_rows(network, tokenizer)
        with atomic.folder(to) as folder:
            network.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            base_model.write_pointer(folder, model)


def corpus(path: Path) -> list[str]:
    """Every turn's text once, in order, without speakers and without pairing."""
    seen: dict[str, None] = {}
    for sample in records.read_samples(path):
        for question, answer in [*sample.history, [sample.instruction, sample.output]]:
            seen.update({question: None, answer: None})
    return [text for text in seen if text]


def pack(tokenizer: Any, texts: list[str], block_size: int) -> list[list[int]]:
    """The texts' ids, a line break between two, cut into blocks; the rest that fills none is left out."""
    ids = [i for text in texts for i in tokenizer.encode(text + "\n", add_special_tokens=False)]
    blocks = [ids[start : start + block_size] for start in range(0, len(ids) - block_size + 1, block_size)]
    if not blocks:
        raise UserError(f"base.block_size is {block_size}, but the text has only {len(ids)} tokens")
    return blocks


def rows_of(blocks: Sequence[list[int]]) -> list[length_grouping.Row]:
    """Each block is a row of its own."""
    return [length_grouping.Row([i], len(block)) for i, block in enumerate(blocks)]


def collate(blocks: list[list[int]]) -> dict[str, Any]:
    import torch

    ids = torch.tensor(blocks)
    return {"input_ids": ids, "labels": ids.clone()}


if __name__ == "__main__":
    typer.run(main)
