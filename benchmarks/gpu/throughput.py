"""What SFT, the reward model, PPO and predict cost on models of known shapes with random weights, by their profiles.

    python -m benchmarks.gpu.throughput [--tiny]

Every sequence has the profile's full length. Of SFT and the reward model it is one forward and backward pass, of PPO a
whole update with its parts, of predict one batch. The share is of the GPU's bfloat16 peak, and counts what the method
needs: 2 FLOP per weight and token forward, 2 backward (the frozen weights have no gradient), nothing recomputed, and
attention's products.
"""

import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import get_peft_model
from torch import nn

from benchmarks import memory
from benchmarks.gpu import networks
from benchmarks.gpu.session import Numbers, Session
from stages import sft
from stages.generation.generate import generate
from stages.models import reward, stack
from stages.models.lora import LoraConfig
from stages.preference import batches, pairs
from stages.preference.reward_loss import reward_loss
from stages.rl.trainer import Trainer
from stages.text.encoding import Encoded
from stages.training import samples

PROFILES = ("chatglm-6b", "chatglm-6b-80gb", "qwen3-0.6b", "qwen3-0.6b-80gb", "qwen3-1.7b", "qwen3-1.7b-80gb")
STAGES = ("sft", "rm", "ppo", "predict")


def main(argv: list[str] | None = None) -> None:
    session = Session("throughput", "tokens per second and peak memory of each stage by the profiles", argv)
    profiles = ("chatglm-6b", "qwen3-0.6b-80gb") if session.tiny else PROFILES
    for name in profiles:
        model, config = memory.profiled(name)
        shape = memory.shape_of(model, config["base"])
        if session.tiny:
            shape = networks.TINY[shape.chatglm]
            config = {key: shortened(section) for key, section in config.items()}
        work = {"sft": train_sft, "rm": train_rm, "ppo": update, "predict": answer}
        for stage in STAGES:
            session.run(f"{name} {stage}", partial(work[stage], session, shape, model, config))
    session.end(len(profiles) * len(STAGES))


def shortened(section: Any) -> Any:
    """The section with lengths and batches for a check of the code."""
    small = {"max_source_length": 12, "max_target_length": 6, "max_new_tokens": 6, "min_response_length": 6,
             "max_response_length": 6, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1,
             "tokens_per_batch": 40, "total_episodes": 4, "batch_size": 2, "num_mini_batches": 1,
             "local_rollout_forward_batch_size": 2}  # fmt: skip
    names = type(section).model_fields
    return section.replace(**{name: value for name, value in small.items() if name in names})


def adapted(network: Any, lora: LoraConfig, model: Any, kind: str, adapter: str = "default", **more: Any) -> Any:
    """The network with a LoRA adapter that trains, set up as the stages do."""
    found = get_peft_model(network, lora.config(task_type=kind, **more), adapter_name=adapter)
    recompute(found, model)
    for parameter in found.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return found.train()


def recompute(found: Any, model: Any) -> None:
    if model.gradient_checkpointing:
        found.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        found.enable_input_require_grads()


def train_sft(session: Session, shape: memory.Shape, model: Any, config: dict[str, Any]) -> Numbers:
    settings = config["sft"]
    rows, source, target = settings.per_device_train_batch_size, settings.max_source_length, settings.max_target_length
    network = adapted(networks.make(shape, dtype(session, model), session.device), settings.lora, model, "CAUSAL_LM")
    asked = networks.prompts(shape, rows, source)
    answered = [samples.EncodedSample(Encoded(prompt), Encoded([7] * target)) for prompt in asked]
    batch = {name: each.to(session.device) for name, each in samples.collate(answered, networks.PAD).items()}
    work = passed(session, model, network, lambda: sft.answer_loss(network, batch)[:, 1].sum())
    flops = rows * trained_flops(shape, source + target, target)
    return rates(session, session.seconds(work), rows * (source + target), flops)


def train_rm(session: Session, shape: memory.Shape, model: Any, config: dict[str, Any]) -> Numbers:
    settings = config["rm"]
    rows, source, target = settings.per_device_train_batch_size, settings.max_source_length, settings.max_target_length
    network = reward.in_float32(networks.make(shape, dtype(session, model), session.device, scores=True))
    network.score.to(session.device)
    network = adapted(network, settings.lora, model, "SEQ_CLS", modules_to_save=["score"])
    asked = [pairs.EncodedPair(p, [7] * target, [8] * target) for p in networks.prompts(shape, rows, source)]
    found = batches.Apart(networks.PAD)(asked) if shape.chatglm else batches.Together(networks.PAD)(asked)
    batch = {
        name: [half.to(session.device) for half in each] if isinstance(each, list) else each.to(session.device)
        for name, each in found.items()
    }
    loss = reward_loss(settings.center_rewards_coefficient)
    work = passed(session, model, network, lambda: loss(network, batch)[:, 1].sum())
    prompts = 2 if shape.chatglm else 1  # of a pair
    tokens = prompts * source + 2 * target
    flops = rows * trained_flops(shape, tokens, 0)
    return rates(session, session.seconds(work), rows * tokens, flops)


def passed(session: Session, model: Any, network: Any, loss: Any) -> Any:
    """A forward and backward pass with the optimizer's step, in the precision of the Trainer."""
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5)
    half = dtype(session, model)

    def work() -> None:
        wide = half == "float32"
        with nullcontext() if wide else torch.autocast(session.device.type, dtype=getattr(torch, half)):
            found = loss()
        found.backward()
        optimizer.step()
        optimizer.zero_grad()

    return work


def update(session: Session, shape: memory.Shape, model: Any, config: dict[str, Any]) -> Numbers:
    settings = config["ppo"].replace(normalize_reward="none", early_stop_kl=None)
    network = networks.make(shape, dtype(session, model), session.device)
    network = get_peft_model(network, config["sft"].lora.config(task_type="CAUSAL_LM"), adapter_name="sft")
    for name, lora in (("reward", config["rm"].lora), ("ppo", settings.lora)):
        network.add_adapter(name, lora.config(task_type="CAUSAL_LM"))
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=network, policy=["sft", "ppo"], reference=["sft"],
            reward_head=nn.Linear(shape.hidden, 1, bias=False).to(session.device).requires_grad_(False),
            prompts=networks.prompts(shape, settings.batch_size, settings.max_source_length), eos=[shape.vocab],
            pad=networks.PAD, config=settings, seed=0, accelerator=Accelerator(cpu=session.tiny), work=Path(folder),
        )  # fmt: skip
        recompute(network, model)
        parts = {"sampling": 0.0, "scoring": 0.0, "learning": 0.0}
        tokens = 0
        for number in range(2 if session.tiny else 4):
            times = [session.now()]
            rollouts = trainer.sample_rollouts()
            times.append(session.now())
            experience = trainer.make_experience(rollouts)
            times.append(session.now())
            trainer.optimize(rollouts, experience)
            times.append(session.now())
            trainer.state.update += 1
            if number:  # the first warms up
                tokens += sum(map(len, rollouts.responses))
                for part, began, ended in zip(parts, times, times[1:], strict=False):
                    parts[part] += ended - began
    taken = sum(parts.values())
    new = tokens / number / settings.batch_size
    length = settings.max_source_length + round(new)
    # sampling, then the policy, the reference and the reward model, then each epoch's forward and backward pass
    once = settings.batch_size * forward_flops(shape, length, round(new))
    flops = number * (4 * once + settings.num_ppo_epochs * 2 * once)
    return rates(session, taken, tokens, flops) | {f"{part}_s": each / number for part, each in parts.items()}


def answer(session: Session, shape: memory.Shape, model: Any, config: dict[str, Any]) -> Numbers:
    settings = config["predict"]
    rows, new = settings.batch_size, settings.max_new_tokens
    network = networks.make(shape, dtype(session, model), session.device)
    network = get_peft_model(network, config["sft"].lora.config(task_type="CAUSAL_LM"), adapter_name="sft")
    network.add_adapter("ppo", config["ppo"].lora.config(task_type="CAUSAL_LM"))
    stack.activate(network.eval(), ["sft", "ppo"])
    asked = networks.prompts(shape, rows, settings.max_source_length)

    def work() -> None:
        with stack.merged(network, only_if=settings.merge_adapters):
            list(generate(network, asked, list(map(str, range(rows))), settings, new, rows, [shape.vocab], networks.PAD,
                          with_graphs=settings.cuda_graphs))  # fmt: skip

    flops = rows * forward_flops(shape, settings.max_source_length + new, new)
    return rates(session, session.seconds(work, repeats=1), rows * new, flops)


def dtype(session: Session, model: Any) -> str:
    return "float32" if session.tiny else str(model.dtype)


def forward_flops(shape: memory.Shape, length: int, answer_tokens: int) -> float:
    """Of one sequence: the matrices on all tokens, the LM head on the answer's, attention's two products."""
    attention = 4 * shape.layers * shape.heads * shape.head_dim * length**2 / 2  # causal
    return 2 * shape.matrices * length + attention + 2 * shape.vocab * shape.hidden * answer_tokens


def trained_flops(shape: memory.Shape, length: int, answer_tokens: int) -> float:
    return 2 * forward_flops(shape, length, answer_tokens)


def rates(session: Session, seconds: float, tokens: float, flops: float) -> dict[str, float]:
    """`tokens`: sampled ones for PPO and predict, else all that a pass reads."""
    return {
        "seconds": seconds,
        "tokens_per_s": tokens / seconds,
        "share_of_peak": flops / seconds / session.peaks()[0],
    }


if __name__ == "__main__":
    main()
