"""One run of LLaMA-Factory's SFT, RM or predict: `python benchmarks/stages_llamafactory.py TASK FOLDER`.

Runs in a virtual environment of its own (benchmarks/requirements-llamafactory.txt) and prints a JSON line. It reads the
same token ids, as a data set that is tokenized already; batches and settings are the same, gradient checkpointing is
off. Its reward model is its own: a value head on the causal model, whose LM head is computed at every position, too.
"""

import contextlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ |= {"DISABLE_VERSION_CHECK": "1", "LLAMAFACTORY_VERBOSITY": "ERROR"}

import torch
from datasets import Dataset, DatasetDict
from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer
from llamafactory.train.tuner import run_exp
from measure import Meter


def main(task: str, folder: Path) -> None:
    import transformers

    _ = transformers.Qwen3ForCausalLM
    meter = Meter()
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work, contextlib.redirect_stdout(sys.stderr):
        data = str(Path(work, "data"))
        if task == "predict":
            texts.sort(key=lambda text: len(text["prompt"]))
        rows = Dataset.from_list([row(task, text) for text in texts])
        DatasetDict({"validation" if task == "predict" else "train": rows}).save_to_disk(data)
        arguments = common(settings) | {
            "model_name_or_path": str(folder / "base"),
            "tokenized_path": data,
            "eval_dataset" if task == "predict" else "dataset": "tokenized",  # a name must be given, and is not read
            "output_dir": str(Path(work, "out")),
        }
        if task == "predict":
            predict(arguments | predicting(settings), settings["new_tokens"], meter)
        else:
            run_exp(arguments | training(task, settings), callbacks=[meter.callback()])
    meter.report(samples=len(texts), **meter.found)


def row(task: str, text: dict[str, list[int]]) -> dict[str, Any]:
    """As LLaMA-Factory itself would tokenize it."""

    def answered(name: str, before: str) -> dict[str, list[int]]:
        ids = [*text["prompt"], *text[name]]
        labels = [-100] * len(text["prompt"]) + text[name]
        return {f"{before}input_ids": ids, f"{before}attention_mask": [1] * len(ids), f"{before}labels": labels}

    if task == "sft":
        return answered("chosen", "")
    if task == "rm":
        media = {"images": None, "videos": None, "audios": None}
        return answered("chosen", "chosen_") | answered("rejected", "rejected_") | media
    return {"input_ids": text["prompt"], "attention_mask": [1] * len(text["prompt"]), "labels": text["chosen"]}


def common(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "template": "empty",
        "finetuning_type": "lora",
        "use_cpu": True,
        "report_to": "none",
        "seed": settings["seed"],
        "disable_tqdm": True,
        "trust_remote_code": False,
    }


def training(task: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "stage": task,
        "do_train": True,
        "lora_target": "all",
        "lora_rank": settings["lora_r"],
        "lora_alpha": settings["lora_r"],
        "disable_gradient_checkpointing": True,
        "num_train_epochs": 1,
        "per_device_train_batch_size": settings["batch_size"],
        "gradient_accumulation_steps": 2,
        "learning_rate": settings["learning_rate"],
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "plot_loss": False,
    }


def predicting(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "stage": "sft",
        "do_predict": True,
        "predict_with_generate": True,
        "per_device_eval_batch_size": settings["peer_predict_batch_size"],
        "do_sample": True,
        "temperature": 0.95,
        "top_k": 0,
        "top_p": 0.7,
        "max_new_tokens": settings["new_tokens"],
    }


def predict(arguments: dict[str, Any], new_tokens: int, meter: Meter) -> None:
    """Time the generation alone, without the text scores that follow; no answer may end before `new_tokens`."""
    step = CustomSeq2SeqTrainer.prediction_step
    seconds, tokens = [], []

    def timed(self: Any, *positional: Any, **named: Any) -> Any:
        self._gen_kwargs |= {"min_new_tokens": new_tokens}
        start = time.process_time()
        found = step(self, *positional, **named)
        seconds.append(time.process_time() - start)
        tokens.append(len(found[1]) * new_tokens)
        return found

    CustomSeq2SeqTrainer.prediction_step = timed
    run_exp(arguments, callbacks=[])
    meter.seconds, meter.tokens = [sum(seconds)], [sum(tokens)]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
