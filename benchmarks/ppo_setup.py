"""What both sides of the PPO benchmark load: a random Qwen3-shaped model, adapters and prompts; and the floor.

    python -m benchmarks.ppo_setup FOLDER '{"hidden_size": 256, …}'

The floor is the CPU time of the matrix products alone that an update can't do without, on this machine: the linear
layers on the real tokens, without padding, adapters, norms, softmax or optimizer.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import Tensor

from stages.importing import dialogues
from stages.models import base_model, reward, stack, tiny
from stages.text import encoding

DATA = Path("data/sample/train_data.json")


def main(folder: Path, settings: dict[str, Any]) -> None:
    torch.manual_seed(settings["seed"])
    base, tokenizer, network = make_base(folder / "base", settings)
    make_adapter(base, "sft", folder / "sft", settings)
    make_adapter(base, "reward", folder / "reward", settings)
    head = torch.randn(1, settings["hidden_size"]) / settings["hidden_size"] ** 0.5
    save_file({"weight": head}, folder / "reward" / reward.HEAD, metadata={"format": "pt"})
    prompts = [
        encoding.encode_prompt(tokenizer, sample.history, sample.instruction, settings["max_source_length"], "ppo").ids
        for dialogue in json.loads(DATA.read_text(encoding="utf-8"))
        for sample in dialogues.to_samples(dialogue, dialogues.DialogueRules(), str(DATA))[0]
    ]
    # As many as one update answers, from short to long: so every update of either side answers the very same prompts.
    prompts.sort(key=len)
    size = settings["batch_size"]
    prompts = [prompts[(2 * i + 1) * len(prompts) // (2 * size)] for i in range(size)]
    (folder / "prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    mean = sum(map(len, prompts)) / len(prompts)
    found = {
        "parameters": network.num_parameters(),
        "vocab_size": len(tokenizer),
        "prompts": len(prompts),
        "mean_prompt_tokens": mean,
    }
    print(json.dumps(found | (floor(network, mean, settings) if settings["device"] == "cpu" else {})))


def make_base(folder: Path, settings: dict[str, Any]) -> tuple[base_model.Base, Any, Any]:
    """The base as `stages.base` would leave it, but untrained."""
    architecture = tiny.Architecture(
        vocab_size=settings["vocab_size"],
        hidden_size=settings["hidden_size"],
        intermediate_size=settings["intermediate_size"],
        num_hidden_layers=settings["num_hidden_layers"],
        num_attention_heads=settings["num_attention_heads"],
        num_key_value_heads=settings["num_key_value_heads"],
        max_position_embeddings=1024,
    )
    texts = [turn for dialogue in json.loads(DATA.read_text(encoding="utf-8")) for turn in dialogue]
    tokenizer = tiny.tokenizer(texts, architecture)
    network = tiny.network(architecture, tokenizer)
    tokenizer.save_pretrained(folder)
    network.save_pretrained(folder)
    model = base_model.ModelConfig(
        name=base_model.TINY,
        revision=None,
        trust_remote_code=False,
        dtype=settings["dtype"],
        attn_implementation="sdpa",
        quantization="none",
        gradient_checkpointing=False,
        fsdp=False,
        chatglm_first_round=0,
    )
    base_model.write_pointer(folder, model)
    return base_model.read(folder), tokenizer, network


def make_adapter(base: base_model.Base, name: str, folder: Path, settings: dict[str, Any]) -> None:
    """A random adapter on all linear layers."""
    lora = LoraConfig(
        r=settings["lora_r"], lora_alpha=settings["lora_r"], target_modules="all-linear", init_lora_weights=False,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    folder.mkdir()
    stack.save(get_peft_model(base.causal_lm(), lora, adapter_name=name), name, name, base, [], folder)


def floor(network: Any, prompt: float, settings: dict[str, Any]) -> dict[str, float]:
    """CPU seconds per update of the unavoidable matrix products, by part, and the GFLOP/s that they ran at."""
    layers = [m.weight.detach() for m in network.model.modules() if isinstance(m, torch.nn.Linear)]
    head = [network.get_output_embeddings().weight.detach()]
    rows, new, micro = settings["batch_size"], settings["response_length"], settings["micro_batch_size"]
    text = round(prompt) + new

    def through(weights: list[Tensor], tokens: int) -> float:
        inputs = {w.shape[1]: torch.randn(tokens, w.shape[1]) for w in weights}
        return seconds(lambda: [torch.nn.functional.linear(inputs[w.shape[1]], w) for w in weights])

    def back(weights: list[Tensor], tokens: int) -> float:
        gradients = {w.shape[0]: torch.randn(tokens, w.shape[0]) for w in weights}
        return seconds(lambda: [gradients[w.shape[0]] @ w for w in weights])

    prefill = through(layers, rows * round(prompt)) + through(head, rows)
    decode = (new - 1) * (through(layers, rows) + through(head, rows))
    # Policy with values, reference and reward model; the last has no LM head.
    scoring = 3 * through(layers, rows * text) + 2 * through(head, rows * new)
    # The base is frozen: its backward pass has the gradients of the activations alone, as many products as forward.
    learning = (
        settings["num_ppo_epochs"] * (rows // micro)
        * (through(layers, micro * text) + back(layers, micro * text)
           + through(head, micro * new) + back(head, micro * new))
    )  # fmt: skip
    weights = sum(w.numel() for w in layers)
    flops = 2 * weights * rows * text / through(layers, rows * text)
    return {
        "floor_prefill": prefill,
        "floor_decode": decode,
        "floor_scoring": scoring,
        "floor_learning": learning,
        "floor": prefill + decode + scoring + learning,
        "gflops_wide": flops / 1e9,
        "gflops_decode": 2 * weights * rows / through(layers, rows) / 1e9,
    }


def seconds(work: Callable[[], Any], at_least: float = 0.3) -> float:
    """The least CPU time of one call: what disturbs a run only ever adds."""
    with torch.no_grad():
        work()
        best, until = float("inf"), time.process_time() + at_least
        while time.process_time() < until:
            start = time.process_time()
            work()
            best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
