"""One run of TRL's SFT or RM, or of transformers' generate: `python benchmarks/stages_trl.py TASK FOLDER`.

Prints a JSON line. The same texts, batches and settings as ours; gradient checkpointing is off, as in ours.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from datasets import Dataset
from measure import Meter
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer


def main(task: str, folder: Path) -> None:
    _ = transformers.Qwen3ForCausalLM, transformers.Qwen3ForSequenceClassification
    meter = Meter()
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    texts = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    transformers.set_seed(settings["seed"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "base", padding_side="left")
    if task == "predict":
        predict(folder, tokenizer, texts, settings, meter)
    else:
        train(task, folder, tokenizer, texts, settings, meter)


def train(task: str, folder: Path, tokenizer: Any, texts: Any, settings: dict[str, Any], meter: Meter) -> None:
    with tempfile.TemporaryDirectory() as work:
        common = {
            "output_dir": work,
            "seed": settings["seed"],
            "num_train_epochs": 1,
            "max_length": None,
            "report_to": "none",
            "bf16": False,
            "per_device_train_batch_size": settings["batch_size"],
            "gradient_accumulation_steps": 2,
            "use_cpu": True,
            "learning_rate": settings["learning_rate"],
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "save_strategy": "no",
            "activation_checkpointing": False,
            "disable_tqdm": True,
        }
        lora = {"r": settings["lora_r"], "lora_alpha": settings["lora_r"], "target_modules": "all-linear"}
        if task == "sft":
            rows = [
                {
                    "input_ids": [*t["prompt"], *t["chosen"]],
                    "labels": [-100] * len(t["prompt"]) + t["chosen"],
                }
                for t in texts
            ]
            model = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
            kind, args, peft_task = SFTTrainer, SFTConfig(**common), "CAUSAL_LM"
        else:
            rows = [
                {"chosen_ids": [*t["prompt"], *t["chosen"]], "rejected_ids": [*t["prompt"], *t["rejected"]]}
                for t in texts
            ]
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder / "base", num_labels=1, dtype=torch.float32
            )
            kind, args, peft_task = RewardTrainer, RewardConfig(**common), "SEQ_CLS"
            lora["modules_to_save"] = ["score"]
        trainer = kind(
            model=model,
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=peft.LoraConfig(task_type=peft_task, **lora),
            callbacks=[meter.callback()],
        )
        trainer.train()
    meter.report(samples=len(rows), **meter.found)


def predict(folder: Path, tokenizer: Any, texts: Any, settings: dict[str, Any], meter: Meter) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    size, prompts = settings["peer_predict_batch_size"], sorted((text["prompt"] for text in texts), key=len)
    tokens = 0
    meter.start()
    for start in range(0, len(prompts), size):
        batch = tokenizer.pad({"input_ids": prompts[start : start + size]}, return_tensors="pt")
        with torch.no_grad():
            found = model.generate(
                **batch,
                do_sample=True,
                temperature=0.95,
                top_k=0,
                top_p=0.7,
                max_new_tokens=settings["new_tokens"],
                min_new_tokens=settings["new_tokens"],
                pad_token_id=tokenizer.pad_token_id,
            )
        tokens += found[:, batch["input_ids"].shape[1] :].numel()
    meter.update(tokens)
    meter.report(samples=len(prompts))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
