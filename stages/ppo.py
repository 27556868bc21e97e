"""PPO: the SFT model learns to give answers that the reward model prefers, without leaving the SFT model far behind.

python -m stages.ppo --help
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from stages.models import base_model, reward, stack
from stages.rl.config import PpoConfig
from stages.runtime import atomic, curves, environment, params, processes, resume
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.text import encoding, records


class Inputs(NamedTuple):
    """The files and folders that a policy is trained from."""

    train: Path
    validate: Path
    base: Path
    sft: Path
    rm: Path


@command
def main(
    train: Annotated[Path, typer.Option(help="samples whose questions are answered (JSON lines)")],
    validate: Annotated[Path, typer.Option(help="more of them")],
    base: Annotated[Path, typer.Option(help="folder of the base model")],
    sft: Annotated[Path, typer.Option(help="folder of the sft adapter")],
    rm: Annotated[Path, typer.Option(help="folder of the reward adapter and its head")],
    to: Annotated[Path, typer.Option(help="folder of the ppo adapter")],
    log: Annotated[Path, typer.Option(help="folder of the curve and the training metrics")],
    params_file: Annotated[Path, typer.Option("--params", help="parameters")],
) -> None:
    """Train the policy against the reward model."""
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "ppo", PpoConfig)
    run("ppo", Inputs(train, validate, base, sft, rm), to, log, seed, config, new_trainer)


def new_trainer(**arguments: Any) -> Any:
    from stages.rl.trainer import Trainer

    return Trainer(**arguments)


def run(
    name: str,
    inputs: Inputs,
    to: Path,
    log: Path,
    seed: int,
    config: PpoConfig,
    new_trainer: Callable[..., Any],
    more_inputs: Sequence[Path] = (),
) -> None:
    """Train, and write adapter, curve and metrics.

    Args:
        name: of the work folder that an unfinished run leaves.
        new_trainer: makes a `stages.rl.trainer.Trainer` of its arguments.
        more_inputs: what else decides the result.
    """
    samples = [*records.read_samples(inputs.train), *records.read_samples(inputs.validate)]
    frozen_base = base_model.read(inputs.base)
    stack.resolve(frozen_base, [inputs.rm], "reward")
    processes.announce("ppo")
    stack.resolve(frozen_base, [inputs.sft], "sft")  # a stack that does not fit ends here, before any weight is read

    from transformers import set_seed

    accelerator = processes.join()
    with resume.folder(name, [seed, config.model_dump()], [*inputs, *more_inputs]) as state_folder:
        from stages.generation.generate import eos_ids

        set_seed(seed)
        tokenizer = frozen_base.tokenizer()
        model, policy, reference = build(frozen_base, inputs.sft, inputs.rm, config, accelerator.device)
        prompts = [encode(tokenizer, sample, config) for sample in samples]
        trainer = new_trainer(
            model=model,
            policy=policy,
            reference=reference,
            reward_head=reward.load_head(inputs.rm, accelerator.device),
            prompts=prompts,
            eos=eos_ids(model, tokenizer),
            pad=tokenizer.pad_token_id,
            config=config,
            seed=seed,
            accelerator=accelerator,
            work=state_folder,
        )
        if frozen_base.model.gradient_checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        state = trainer.train()
        if not accelerator.is_main_process:
            return

        curves.write(log / "curve.csv", list(state.rows[0]), state.rows)
        environment.write(log)
        atomic.write_json(log / "metrics.json", summary(state))
        with atomic.folder(to) as folder:
            from safetensors.torch import save_file

            save_file(
                {name: p.detach().cpu() for name, p in trainer.value_head.state_dict().items()},
                folder / "value_head.safetensors",
                metadata={"format": "pt"},
            )
            below = [] if config.resume_lora_training else [inputs.sft]
            stack.save(model, policy[-1], "ppo", frozen_base, below, folder)


def build(
    frozen_base: base_model.Base, sft: Path, rm: Path, config: PpoConfig, device: Any
) -> tuple[Any, list[str], list[str]]:
    """The stack with the adapter that trains, and the names of the policy's and the reference's adapters."""
    from stages.models import fused_lora

    model = stack.load(frozen_base.causal_lm(device), [sft, rm])
    if not config.resume_lora_training:
        model.add_adapter("ppo", config.lora.fit(model, "ppo").config(task_type="CAUSAL_LM"))
        fused_lora.fuse(model)
        return model, ["sft", "ppo"], ["sft"]
    sft_lineage = stack.lineage(sft)
    if sft_lineage.below:
        raise UserError(f"{sft} was trained on other adapters: resume_lora_training can't go on training it")
    model.load_adapter(str(sft), adapter_name="ppo", is_trainable=True, torch_device="cpu")
    return model, ["ppo"], []


def encode(tokenizer: Any, sample: records.Sample, config: PpoConfig) -> list[int]:
    limit = config.max_source_length
    return encoding.encode_prompt(tokenizer, sample.history, sample.instruction, limit, "ppo").ids


def summary(state: Any) -> dict[str, Any]:
    """The first update, whose answers are the SFT model's, and the last quarter of the run, side by side."""
    quarter = max(1, len(state.rows) // 4)
    names = ("score", "reward", "kl", "entropy", "response_length", "eos_rate", "repetition")

    def mean(rows: list[dict[str, float]], name: str) -> float:
        return round(sum(row[name] for row in rows) / len(rows), 4)

    return {
        "updates": len(state.rows),
        "stopped_early": state.stopped_early,
        "warned_of_hacking": state.warned,
        "reward_mean_of_sft": round(state.reward_mean, 4),
        "first": {name: mean(state.rows[:1], name) for name in names},
        "last": {name: mean(state.rows[-quarter:], name) for name in names},
    }


if __name__ == "__main__":
    typer.run(main)
