"""One run of this project's PPO: `python -m benchmarks.ppo_ours FOLDER`; prints a JSON line.

python -m benchmarks.ppo_ours FOLDER --profile     # where the CPU time goes
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import peft  # noqa: F401  (imports belong to the imports' memory, not to the run's)
import torch
import transformers

from benchmarks.measure import Meter
from stages.models import base_model, reward
from stages.models.lora import LoraConfig
from stages.ppo import build
from stages.rl.config import PpoConfig
from stages.rl.trainer import Trainer


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    _ = transformers.Qwen3ForCausalLM, transformers.GenerationConfig  # imported lazily otherwise
    meter = Meter()

    settings = json.loads((arguments.folder / "settings.json").read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    transformers.set_seed(settings["seed"])
    with tempfile.TemporaryDirectory() as work:
        trainer = make(arguments.folder, settings, Path(work))
        parts = watch(trainer)
        if arguments.profile:
            profile(trainer)
            return
        meter.start()
        for _ in range(settings["updates"]):
            row = trainer.step()
            meter.update(row["response_length"] * settings["batch_size"])
            if len(meter.seconds) == 1:
                parts.clear()  # the warm-up
    measured = max(1, settings["updates"] - 1)
    meter.report(**{name: seconds / measured for name, seconds in parts.items()})


def make(folder: Path, settings: dict[str, Any], work: Path) -> Trainer:
    """The trainer as `stages.ppo` sets it up."""
    config = PpoConfig(
        resume_lora_training=False,
        total_episodes=settings["batch_size"] * (settings["updates"] + 1),
        batch_size=settings["batch_size"],
        num_ppo_epochs=settings["num_ppo_epochs"],
        num_mini_batches=1,
        tokens_per_batch=settings["tokens_per_batch"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        max_grad_norm=1.0,
        max_source_length=settings["max_source_length"],
        min_response_length=settings["response_length"],
        max_response_length=settings["response_length"],
        temperature=1.0,
        local_rollout_forward_batch_size=settings["batch_size"],
        merge_adapters_for_rollouts=True,
        lm_head_chunk=1024,
        normalize_reward="none",
        reward_clip=None,
        missing_eos_penalty=0.0,
        whiten_rewards=False,
        kl_coef=0.05,
        kl_target=None,
        kl_horizon=10000,
        early_stop_kl=None,
        cliprange=0.2,
        cliprange_value=0.2,
        vf_coef=0.1,
        gamma=1.0,
        lam=0.95,
        value_head_init="reward",
        save_steps=1000,
        lora=LoraConfig(r=settings["lora_r"], alpha=settings["lora_r"], dropout=0.0, target_modules="all-linear"),
    )
    origin = base_model.read(folder / "base")
    tokenizer = origin.tokenizer()
    accelerator = accelerate.Accelerator(cpu=settings["device"] == "cpu")
    model, policy, reference = build(origin, folder / "sft", folder / "reward", config, accelerator.device)
    return Trainer(
        model=model,
        policy=policy,
        reference=reference,
        reward_head=reward.load_head(folder / "reward", accelerator.device),
        prompts=json.loads((folder / "prompts.json").read_text(encoding="utf-8")),
        eos=[len(tokenizer)],  # never sampled: all responses get the full length, as in TRL without a stop token
        pad=tokenizer.pad_token_id,
        config=config,
        seed=settings["seed"],
        accelerator=accelerator,
        work=work,
    )


def watch(trainer: Trainer) -> Counter[str]:
    """CPU seconds in the three parts of an update, counted from now on."""
    seconds: Counter[str] = Counter()

    def timed(name: str, part: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return part(*arguments)
            finally:
                seconds[name] += time.process_time() - start

        return call

    trainer.sample_rollouts = timed("rollouts", trainer.sample_rollouts)  # type: ignore[method-assign]
    trainer.make_experience = timed("scoring", trainer.make_experience)  # type: ignore[method-assign]
    trainer.optimize = timed("learning", trainer.optimize)  # type: ignore[method-assign]
    return seconds


def profile(trainer: Trainer) -> None:
    """Print the operators, and what share of the CPU time each takes by itself."""
    from torch.profiler import ProfilerActivity

    trainer.step()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as found:
        trainer.step()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=45))


if __name__ == "__main__":
    main()
