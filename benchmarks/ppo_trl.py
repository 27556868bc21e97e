"""One run of TRL's PPO on the same model and prompts: `python benchmarks/ppo_trl.py FOLDER`; prints a JSON line.

Runs in a virtual environment of its own (benchmarks/requirements-trl.txt). As in TRL's own example, the value model
and the reward model are models apart, and the policy is the SFT model with a new adapter. The SFT and reward adapters
count as merged here, so that TRL runs plain layers.
"""

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import torch
import transformers
from datasets import Dataset
from measure import Meter
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer


class Watch(TrainerCallback):
    """Tells the meter where training starts and when an update is done."""

    def __init__(self, meter: Meter, tokens: float):
        self.meter, self.tokens = meter, tokens

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.meter.start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.meter.update(self.tokens)


def main(folder: Path) -> None:
    _ = transformers.Qwen3ForCausalLM, transformers.Qwen3ForSequenceClassification  # imported lazily otherwise
    meter = Meter()
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    transformers.set_seed(settings["seed"])
    base, dtype = str(folder / "base"), getattr(torch, settings["dtype"])
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    value = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=dtype)
    score = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=dtype)
    prompts = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    data = Dataset.from_dict({"input_ids": prompts})
    with tempfile.TemporaryDirectory() as work:
        config = PPOConfig(
            output_dir=work,
            seed=settings["seed"],
            total_episodes=settings["batch_size"] * settings["updates"],
            per_device_train_batch_size=settings["micro_batch_size"],
            gradient_accumulation_steps=settings["batch_size"] // settings["micro_batch_size"],
            num_mini_batches=1,
            local_rollout_forward_batch_size=settings["batch_size"],
            num_ppo_epochs=settings["num_ppo_epochs"],
            learning_rate=settings["learning_rate"],
            response_length=settings["response_length"],
            temperature=1.0,
            kl_coef=0.05,
            cliprange=0.2,
            cliprange_value=0.2,
            vf_coef=0.1,
            gamma=1.0,
            lam=0.95,
            bf16=settings["dtype"] == "bfloat16",
            gradient_checkpointing=False,  # its default: less memory for more time; ours has it off as well
            num_sample_generations=0,
            report_to="none",
            save_strategy="no",
            use_cpu=settings["device"] == "cpu",
            disable_tqdm=True,
        )
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=policy,
            ref_model=None,
            reward_model=score,
            value_model=value,
            train_dataset=data,
            eval_dataset=data,
            data_collator=DataCollatorWithPadding(tokenizer),
            peft_config=LoraConfig(
                r=settings["lora_r"], lora_alpha=settings["lora_r"], target_modules="all-linear", task_type="CAUSAL_LM"
            ),
            callbacks=[Watch(meter, settings["batch_size"] * settings["response_length"])],
        )
        with contextlib.redirect_stdout(sys.stderr):  # the last line of the output is the result
            trainer.train()
    meter.report()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
