"""PPO on a large model with random weights, on a GPU: samples per second, peak memory, the share of time in rollouts.

    python -m benchmarks.ppo_large                       # 6B, bfloat16; a GPU with about 24 GB
    python -m benchmarks.ppo_large --hidden-size 64 --intermediate-size 128 --layers 2 --heads 4 --vocab-size 500 \\
        --prompt-tokens 16 --new-tokens 8 --dtype float32        # a check of this script on a CPU

Speed and memory do not depend on what the weights say, so nothing is downloaded.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import LoraConfig as PeftLoraConfig
from peft import get_peft_model
from torch import nn
from transformers import Qwen3Config, Qwen3ForCausalLM, set_seed

from benchmarks.measure import peak_mb
from stages.models.lora import LoraConfig
from stages.rl.config import PpoConfig
from stages.rl.trainer import Trainer

END, PAD = 1, 0


def main() -> None:
    parser = argparse.ArgumentParser(description="PPO on a large model with random weights")
    parser.add_argument("--hidden-size", type=int, default=4096)
    parser.add_argument("--intermediate-size", type=int, default=11008)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--vocab-size", type=int, default=130528)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--batch-size", type=int, default=8, help="responses per update")
    parser.add_argument("--tokens-per-batch", type=int, default=768, help="of a forward and backward pass")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--ppo-epochs", type=int, default=4)
    parser.add_argument("--updates", type=int, default=3, help="after one to warm up")
    parser.add_argument("--merge", action="store_true", help="merge the adapters for rollouts: quicker, more memory")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and arguments.hidden_size > 1024:
        parser.error("this size needs a GPU; on a CPU, give a small one such as --hidden-size 64")

    set_seed(0)
    accelerator = Accelerator()
    with tempfile.TemporaryDirectory() as work:
        trainer = make(arguments, accelerator, Path(work))
        print(f"{sum(p.numel() for p in trainer.model.parameters()) / 1e9:.3f}B parameters on {accelerator.device}")
        trainer.step()
        if accelerator.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = rollouts = tokens = 0.0
        for _ in range(arguments.updates):
            start = now(accelerator.device)
            sampled = trainer.sample_rollouts()
            middle = now(accelerator.device)
            experience = trainer.make_experience(sampled)
            trainer.optimize(sampled, experience)
            trainer.state.update += 1
            seconds += now(accelerator.device) - start
            rollouts += middle - start
            tokens += sum(map(len, sampled.responses))
    gpu = accelerator.device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() / 1e9 if gpu else peak_mb() / 1e3
    print(f"samples per second   {arguments.updates * arguments.batch_size / seconds:.3f}")
    print(f"tokens sampled       {tokens / arguments.updates:.0f} per update")
    print(f"share in rollouts    {rollouts / seconds:.1%}")
    print(f"peak memory          {peak:.2f} GB {'allocated on the GPU' if gpu else 'of the process'}")


def make(arguments: argparse.Namespace, accelerator: Any, work: Path) -> Trainer:
    """A trainer with the adapters sft, reward and ppo on one random base, as `stages.ppo` would build it."""
    lora = LoraConfig(r=8, alpha=32, dropout=0.0, target_modules="all-linear")
    dtype = getattr(torch, arguments.dtype)
    config = Qwen3Config(
        vocab_size=arguments.vocab_size,
        hidden_size=arguments.hidden_size,
        intermediate_size=arguments.intermediate_size,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
        num_key_value_heads=arguments.heads,
        head_dim=arguments.hidden_size // arguments.heads,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        eos_token_id=END,
        bos_token_id=None,
        dtype=dtype,
    )
    torch.set_default_dtype(dtype)
    try:
        with torch.device(accelerator.device):  # a copy in float32 on the host would take 24 GB
            network = Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    network.requires_grad_(False)
    model = get_peft_model(network, lora.config(task_type="CAUSAL_LM"), adapter_name="sft")
    for name in ("reward", "ppo"):
        model.add_adapter(name, PeftLoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    config = PpoConfig(
        resume_lora_training=False,
        total_episodes=arguments.batch_size * (arguments.updates + 1),
        batch_size=arguments.batch_size,
        num_ppo_epochs=arguments.ppo_epochs,
        num_mini_batches=1,
        tokens_per_batch=arguments.tokens_per_batch,
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        max_grad_norm=1.0,
        max_source_length=arguments.prompt_tokens,
        min_response_length=arguments.new_tokens,
        max_response_length=arguments.new_tokens,
        temperature=1.0,
        local_rollout_forward_batch_size=arguments.batch_size,
        merge_adapters_for_rollouts=arguments.merge,
        lm_head_chunk=256,
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
        lora=lora,
    )
    head = nn.Linear(arguments.hidden_size, 1, bias=False).to(accelerator.device).requires_grad_(False)
    trainer = Trainer(
        model=model,
        policy=["sft", "ppo"],
        reference=["sft"],
        reward_head=head,
        prompts=torch.randint(2, arguments.vocab_size, (64, arguments.prompt_tokens)).tolist(),
        eos=[END],
        pad=PAD,
        config=config,
        seed=0,
        accelerator=accelerator,
        work=work,
    )
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    return trainer


def now(device: torch.device) -> float:
    """The time, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
