"""What `model.portable` does: the bytes of torch's operations with and without it, and what it costs.

    python -m benchmarks.portable                                     # hashes: the same on another CPU?
    python -m benchmarks.portable --under "qemu-x86_64 -cpu Haswell"  # … on a CPU that qemu emulates
    python -m benchmarks.portable --time                              # CPU seconds of 20 training steps, too

One thread. Each mode is a process of its own, since torch reads the settings when it is imported.
"""

import argparse
import hashlib
import os
import resource
import shlex
import subprocess
import sys

MODES = {"left alone": False, "portable": True}


def main() -> None:
    parser = argparse.ArgumentParser(description="the bytes and the cost of model.portable")
    parser.add_argument("--under", default="", help="a command that runs the interpreter, such as an emulator")
    parser.add_argument("--time", action="store_true", help="time 20 training steps of a model of 3 million parameters")
    parser.add_argument("--mode", choices=MODES, help="this mode alone, in this process")
    arguments = parser.parse_args()
    if arguments.mode:
        from stages.runtime import portable

        portable.use(MODES[arguments.mode], threads=1)
        print(f"{arguments.mode:12}{kernels()}" + (f"  {training_seconds():.1f} CPU s" if arguments.time else ""))
        return
    for mode in MODES:
        command = [*shlex.split(arguments.under), sys.executable, "-m", "benchmarks.portable", "--mode", mode]
        subprocess.run([*command, *(["--time"] if arguments.time else [])], env=os.environ, check=True)


def kernels() -> str:
    """Hashes of matrix products of several shapes, of attention with its gradient, of elementwise functions, of three
    steps of the fused AdamW, and of the square root, which no mode makes the same everywhere and nothing here uses."""
    import torch

    torch.manual_seed(0)
    products = hashlib.sha256()
    for m, n, k in [(64, 64, 64), (96, 224, 608), (37, 129, 53), (256, 2000, 192), (1, 224, 224), (5, 608, 224)]:
        a, b = torch.randn(m, k), torch.randn(k, n)
        products.update((a @ b).numpy().tobytes())
        products.update((a @ torch.randn(n, k).T).numpy().tobytes())
    attention = hashlib.sha256()
    q = torch.randn(2, 4, 33, 48, requires_grad=True)
    y = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    y.sum().backward()
    assert q.grad is not None
    for tensor in (y.detach(), q.grad):
        attention.update(tensor.numpy().tobytes())
    x = torch.randn(64, 300, requires_grad=True)
    torch.log_softmax(torch.nn.functional.silu(x), -1).exp().rsqrt().sum().backward()
    assert x.grad is not None
    elementwise = hashlib.sha256(x.grad.numpy().tobytes())
    weights = torch.randn(64, 300, requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=0.1, fused=True)
    for _ in range(3):
        weights.grad = torch.randn(64, 300)
        optimizer.step()
    adamw = hashlib.sha256(weights.detach().numpy().tobytes())
    root = hashlib.sha256(torch.rand(64, 300).sqrt().numpy().tobytes())
    found = {"products": products, "attention": attention, "elementwise": elementwise, "adamw": adamw, "sqrt": root}
    return "  ".join(f"{name} {digest.hexdigest()[:12]}" for name, digest in found.items())


def training_seconds() -> float:
    """CPU seconds of 20 steps, after 3 that warm up."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=2000, hidden_size=224, intermediate_size=608, num_hidden_layers=5, num_attention_heads=4,
        num_key_value_heads=2, head_dim=56,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = torch.randint(0, 2000, (16, 96))
    started = 0.0
    for step in range(23):
        if step == 3:
            started = cpu_seconds()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return cpu_seconds() - started


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
