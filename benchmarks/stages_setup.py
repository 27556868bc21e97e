"""What both sides of the benchmark of SFT, RM and predict load: a random Qwen3-shaped model, and texts as token ids.

    python -m benchmarks.stages_setup FOLDER '{"hidden_size": 256, …}'

It prints the floor of each task too: the CPU time of the matrix products alone that the real tokens need, without
padding, at the speed that this machine reaches.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.ppo_setup import make_base, seconds
from stages.importing import dialogues
from stages.text import encoding

DATA = Path("data/sample/train_data.json")


def main(folder: Path, settings: dict[str, Any]) -> None:
    torch.manual_seed(settings["seed"])
    _, tokenizer, network = make_base(folder / "base", settings)
    rounds = slice(-1, None) if settings.get("apart") else slice(None)
    samples = [
        sample
        for dialogue in json.loads(DATA.read_text(encoding="utf-8"))
        for sample in dialogues.to_samples(dialogue, dialogues.DialogueRules(), str(DATA))[0][rounds]
    ]
    texts = []
    for number, sample in enumerate(samples[: settings["samples"]]):
        prompt = encoding.encode_prompt(tokenizer, sample.history, sample.instruction, 256, "sft").ids * settings.get(
            "repeat", 1
        )
        answer = encoding.encode_answer(tokenizer, sample.output, 128).ids
        other = encoding.encode_answer(tokenizer, samples[-1 - number].output, 128).ids
        texts.append({"prompt": prompt, "chosen": answer, "rejected": other})
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    prompts, answers, others = (sum(len(text[name]) for text in texts) for name in ("prompt", "chosen", "rejected"))
    found = {
        "parameters": network.num_parameters(),
        "vocab_size": len(tokenizer),
        "tokens_sft": prompts + answers,
        "tokens_rm": prompts + answers + others,
        "peer_tokens_rm": 2 * prompts + answers + others,  # a pair's prompt is computed once for each answer
    }
    print(json.dumps(found | floor(network, texts, settings)))


def floor(network: Any, texts: list[dict[str, list[int]]], settings: dict[str, Any]) -> dict[str, float]:
    """CPU seconds per sample of the unavoidable matrix products, by task."""
    layers = [m.weight.detach() for m in network.model.modules() if isinstance(m, torch.nn.Linear)]
    head = network.get_output_embeddings().weight.detach()
    rows = 1024

    def per_token(weights: list[torch.Tensor], batch: int) -> float:
        inputs = {w.shape[1]: torch.randn(batch, w.shape[1]) for w in weights}
        return seconds(lambda: [torch.nn.functional.linear(inputs[w.shape[1]], w) for w in weights]) / batch

    trunk, top = per_token(layers, rows), per_token([head], rows)
    count = len(texts)
    prompt, answer, other = (sum(len(t[name]) for t in texts) / count for name in ("prompt", "chosen", "rejected"))
    side_by_side = settings["predict_batch_size"]
    step = per_token(layers, side_by_side) + per_token([head], side_by_side)
    return {
        # The base is frozen: its backward pass has the gradients of the activations alone, as many products as forward.
        "floor_sft": 2 * ((prompt + answer) * trunk + answer * top),
        "floor_rm": 2 * (prompt + answer + other) * trunk,
        "floor_predict": prompt * trunk + settings["new_tokens"] * step,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
