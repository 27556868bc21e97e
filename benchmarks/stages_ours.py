"""One run of this project's SFT, RM or predict: `python -m benchmarks.stages_ours TASK FOLDER`; prints a JSON line."""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from benchmarks.measure import Meter
from stages import sft
from stages.generation import generate, loop  # noqa: F401  (imports belong to the imports' memory)
from stages.generation.decoding import Decoding
from stages.models import base_model, fused_lora, reward
from stages.models.lora import LoraConfig
from stages.preference import batches, pairs
from stages.preference.reward_loss import reward_loss
from stages.text.encoding import Encoded
from stages.training import length_grouping, samples, trainer, weighted
from stages.training.config import TrainingConfig

FOREVER = 10**9


def main(task: str, folder: Path) -> None:
    _ = transformers.Qwen3ForCausalLM, transformers.Qwen3ForSequenceClassification, transformers.Trainer
    meter = Meter()
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    transformers.set_seed(settings["seed"])
    base = base_model.read(folder / "base")
    if task == "predict":
        predict(base, texts, settings, meter)
    else:
        train(task, base, texts, settings, meter)


def train(
    task: str, base: base_model.Base, texts: list[dict[str, list[int]]], settings: dict[str, Any], meter: Meter
) -> None:
    """One pass over the texts, as `stages.sft` and `stages.rm` train."""
    config = TrainingConfig(
        num_train_epochs=1,
        per_device_train_batch_size=settings["batch_size"],
        gradient_accumulation_steps=2,
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        logging_steps=1,
        eval_steps=FOREVER,
    )
    tokenizer = base.tokenizer()
    pad = tokenizer.pad_token_id
    lora = LoraConfig(r=settings["lora_r"], alpha=settings["lora_r"])
    if task == "sft":
        rows: list[Any] = [samples.EncodedSample(Encoded(t["prompt"]), Encoded(t["chosen"])) for t in texts]
        model = peft.get_peft_model(base.causal_lm(), lora.config(task_type="CAUSAL_LM"))
        measure, collate = sft.answer_loss, partial(samples.collate, pad=pad)
        step_weight = sum(len(row.answer.ids) for row in rows) / len(rows) * config.batch_size
        in_order: list[Any] = length_grouping.in_training_order(rows, samples.rows_of, config, settings["seed"])
    else:
        rows = [pairs.EncodedPair(t["prompt"], t["chosen"], t["rejected"]) for t in texts]
        classifier = reward.in_float32(base.reward_model())
        classifier.config.pad_token_id = pad
        model = peft.get_peft_model(classifier, lora.config(task_type="SEQ_CLS", modules_to_save=["score"]))
        measure, collate = reward_loss(0.0), batches.collator(model, rows[0], pad)
        step_weight = config.batch_size
        in_order = length_grouping.in_training_order(rows, pairs.rows_of, config, settings["seed"])
    with tempfile.TemporaryDirectory() as work:
        args = trainer.arguments(config, base.model, settings["seed"], Path(work))
        args.eval_strategy, args.save_strategy, args.load_best_model_at_end = "no", "no", False
        args.disable_tqdm = True
        run = weighted.trainer(
            measure,
            ["loss"] if task == "sft" else ["loss", "accuracy", "margin"],
            step_weight,
            model=fused_lora.fuse(model),
            args=args,
            train_dataset=in_order,
            data_collator=collate,
            callbacks=[meter.callback()],
        )
        run.train()
    meter.report(samples=len(in_order), **meter.found)


def predict(base: base_model.Base, texts: list[dict[str, list[int]]], settings: dict[str, Any], meter: Meter) -> None:
    model = base.causal_lm()
    decoding = Decoding(do_sample=True, temperature=0.95, top_k=0, top_p=0.7, repetition_penalty=1.0)
    prompts, keys = [text["prompt"] for text in texts], [str(i) for i in range(len(texts))]
    meter.start()
    answers = list(
        generate.generate(
            model,
            prompts,
            keys,
            decoding,
            settings["new_tokens"],
            settings["predict_batch_size"],
            [settings["vocab_size"] + FOREVER],
            0,
        )
    )
    meter.update(sum(len(answer.ids) for _, answer in answers))
    meter.report(samples=len(answers))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
