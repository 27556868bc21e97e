"""Trains the base model and writes it beside this file: `python data/base/train.py`.

One thread, deterministic: the same text in the same order gives the same weights on the same kind of CPU. A run that was
interrupted goes on from its last checkpoint when the command is given again.
"""

import argparse
import csv
import hashlib
import json
import math
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

os.environ.setdefault("OMP_NUM_THREADS", "1")

import corpus
import torch
import vocabulary
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

HERE = Path(__file__).parent
WORK = HERE.parents[1] / ".work" / "base-model"  # ignored by Git

SEED = 20200401
VOCABULARY, HIDDEN, LAYERS, HEADS, KEY_VALUE_HEADS, FEED_FORWARD = 2048, 192, 6, 4, 2, 512
TOKENS_PER_BATCH = 1280
WARMUP_STEPS, WEIGHT_DECAY, MAX_GRADIENT = 100, 0.05, 1.0
LOG_EVERY, SAVE_EVERY = 200, 2  # steps, rows of the curve
HELD_OUT = 200
BFLOAT16 = torch.cpu.get_capabilities().get("avx512_bf16", False)
"""Whether this CPU multiplies in bfloat16; one that does not takes seven times as long for it as for float32."""


Sequence = tuple[list[int], list[float]]
"""Token ids, and the weight of each in the loss."""


@dataclass(frozen=True)
class Part:
    """One pass over documents of its own; a text's statements and marks, and a chat's marks, count so much each.

    Where `rare` is given, only the embeddings of tokens are learnt that had to be written less often than that before.
    """

    name: str
    documents: int
    learning_rate: float
    statement: float
    statement_mark: float
    answer_mark: float
    rare: int = 0


PARTS = (
    Part("read", 45_000, 3.0e-3, 1.0, 1.0, 4.0),
    Part("mark", 27_000, 1.5e-3, 0.0, 10.0, 10.0),
    Part("both", 22_000, 1.5e-3, 1.0, 4.0, 10.0),
    Part("both again", 26_000, 2.0e-3, 1.0, 4.0, 10.0),
    Part("further words", 4_000, 3.0e-3, 1.0, 4.0, 10.0, rare=10),
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--share", type=float, default=1.0, help="of the documents, for a quick trial")
    options.add_argument("--to", type=Path, default=HERE, help="folder of the model")
    chosen = options.parse_args()

    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    tokenizer = network = None
    rows: list[list] = []
    written: Counter[int] = Counter()
    for number, part in enumerate(PARTS):
        seed, count = SEED + 2 * number, round(part.documents * chosen.share)
        documents = list(corpus.documents(count, seed, part.name))
        held_out = list(corpus.documents(HELD_OUT, seed + 1, part.name))
        if tokenizer is None:
            texts = (text for document in documents for text in corpus.pieces(document))
            tokenizer = vocabulary.build(texts, VOCABULARY, corpus.sample_characters())
            network = new_network(tokenizer)
        sequences = [encode(tokenizer, document, part) for document in documents]
        batches = in_batches(sequences, Random(SEED))
        held_out_batches = in_batches([encode(tokenizer, document, part) for document in held_out], Random(SEED))
        print(
            f"{part.name}: {sum(p.numel() for p in network.parameters()) / 1e6:.2f} M parameters, {len(tokenizer)} "
            f"tokens in the vocabulary; {len(documents)} documents, "
            f"{sum(len(ids) for batch in batches for ids, _ in batch) / 1e6:.2f} M tokens, {len(batches)} steps",
            flush=True,
        )
        wanted = targets(sequences)
        if part.rare:
            learn_embeddings(network, [token for token in wanted if written[token] < part.rare])
        written += wanted
        work = WORK / f"{part.name}-{count}-{recipe()}.safetensors"
        rows += [[part.name, *row] for row in learn(network, batches, held_out_batches, part, work)]
        with torch.no_grad():  # each part ends with what the folder can hold
            for parameter in network.parameters():
                parameter.copy_(parameter.bfloat16())
    write(network, tokenizer, rows, chosen.to)


def recipe() -> str:
    """Of all that decides the text and the training: a checkpoint of another recipe is not gone on with."""
    digest = hashlib.sha256()
    for path in sorted([*HERE.glob("*.py"), *corpus.SAMPLE.glob("*.py"), *corpus.SAMPLE.glob("*.json")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def write(network, tokenizer, rows: list[list], to: Path) -> None:
    """The model's folder: everything is in a hidden folder first, and then moved."""
    partial = to / ".model.partial"  # there, since a rename can't leave a file system
    shutil.rmtree(partial, ignore_errors=True)
    network.to(torch.bfloat16).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    with (partial / "curve.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("part", "step", "tokens", "loss", "held_out_loss"), *rows])
    for path in sorted(partial.iterdir()):
        os.replace(path, to / path.name)
    partial.rmdir()
    shutil.rmtree(WORK, ignore_errors=True)


def new_network(tokenizer) -> Qwen3ForCausalLM:
    """Qwen3's architecture, small, with tied embeddings and random weights."""
    special = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_VALUE_HEADS,
        head_dim=HIDDEN // HEADS,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        **special,
    )
    network = Qwen3ForCausalLM(config)
    network.generation_config = GenerationConfig(do_sample=True, temperature=0.95, top_p=0.7, top_k=0, **special)
    return network


def encode(tokenizer, document: corpus.Document, part: Part) -> Sequence:
    """Ids of a chat, through the template, or of a text, closed by EOS; and how much each of them counts in the loss.

    Where there are marks, the words of a chat do not count.
    """
    ids: list[int] = []
    weights: list[float] = []

    def add(text: str, weight: float) -> None:
        new = tokenizer.encode(text, add_special_tokens=False)
        ids.extend(new)
        weights.extend([weight] * len(new))

    marked = any("mark" in line for line in document)
    if "role" in document[0]:
        for message in document:
            add(tokenizer.apply_chat_template([message], tokenize=False), 0.0 if marked else 1.0)
            add(message.get("mark", ""), part.answer_mark)
        return ids, weights
    weight = part.statement if marked else 1.0
    for number, line in enumerate(document):
        add("\n" * (number > 0) + line["content"], weight)
        add(line.get("mark", ""), part.statement_mark)
    add(vocabulary.END, weight)
    return ids, weights


def targets(sequences: list[Sequence]) -> Counter[int]:
    """How often each token has to be written."""
    return Counter(token for ids, weights in sequences for token, weight in zip(ids, weights, strict=True) if weight)


def learn_embeddings(network, tokens: list[int]) -> None:
    """From now on nothing but the embeddings of these tokens is learnt."""
    for parameter in network.parameters():
        parameter.requires_grad = False
    weight = network.get_input_embeddings().weight
    chosen = torch.zeros(len(weight), 1)
    chosen[tokens] = 1
    weight.requires_grad = True
    weight.register_hook(lambda gradient: gradient * chosen)


def in_batches(sequences: list[Sequence], rng: Random) -> list[list[Sequence]]:
    """Batches of about equally long sequences, in random order; all of about the same number of tokens."""
    batches = []
    for start in range(0, len(sequences), 2048):  # a stretch of the corpus at a time, so that its order stays
        stretch, batch = [], []
        for sequence in sorted(sequences[start : start + 2048], key=lambda sequence: len(sequence[0])):
            if batch and len(sequence[0]) * (len(batch) + 1) > TOKENS_PER_BATCH:
                stretch.append(batch)
                batch = []
            batch.append(sequence)
        stretch.append(batch)
        rng.shuffle(stretch)
        batches += stretch
    return batches


def loss_of(network, batch: list[Sequence]) -> torch.Tensor:
    """Weighted mean negative log-likelihood of the batch's tokens."""
    longest = max(len(ids) for ids, _ in batch)
    rows = torch.tensor([ids + [network.config.pad_token_id] * (longest - len(ids)) for ids, _ in batch])
    weights = torch.tensor([weights[1:] + [0.0] * (longest - len(weights)) for _, weights in batch]).flatten()
    with torch.autocast("cpu", torch.bfloat16, enabled=BFLOAT16):
        logits = network(input_ids=rows[:, :-1], use_cache=False).logits
    losses = cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="none")
    return (losses * weights).sum() / weights.sum()


def learn(network, batches, held_out, part: Part, work: Path) -> list[list]:
    """Train on every batch once, from the last checkpoint in `work` if there is one; returns the curve's rows."""
    decay = 0.0 if part.rare else WEIGHT_DECAY  # it would shrink the embeddings that are not learnt
    optimizer = torch.optim.AdamW(
        [parameter for _, parameter in learnt(network)], betas=(0.9, 0.98), weight_decay=decay, fused=True
    )
    first, tokens, rows = load_checkpoint(work, network, optimizer)
    started, tokens_before, recent = time.time(), tokens, []
    for step in range(first, len(batches) + 1):
        optimizer.param_groups[0]["lr"] = part.learning_rate * schedule(step, len(batches))
        loss = loss_of(network, batches[step - 1])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT)
        optimizer.step()
        optimizer.zero_grad()
        tokens += sum(len(ids) for ids, _ in batches[step - 1])
        recent.append(loss.item())
        if step % LOG_EVERY == 0 or step == len(batches):
            with torch.no_grad():
                held_out_loss = sum(loss_of(network, batch).item() for batch in held_out) / len(held_out)
            rows.append([step, tokens, round(sum(recent) / len(recent), 4), round(held_out_loss, 4)])
            elapsed = time.time() - started
            print(
                f"step {step}/{len(batches)}: loss {rows[-1][2]:.3f}, held out {held_out_loss:.3f}; "
                f"{tokens / 1e6:.2f} M tokens at {(tokens - tokens_before) / elapsed:.0f} a second, "
                f"{elapsed / (step - first + 1) * (len(batches) - step) / 60:.1f} minutes left",
                flush=True,
            )
            recent = []
            if len(rows) % SAVE_EVERY == 0:
                save_checkpoint(work, network, optimizer, step + 1, tokens, rows)
    return rows


def schedule(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to zero: the share of the part's learning rate."""
    if step <= WARMUP_STEPS:
        return step / WARMUP_STEPS
    return (1 + math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS))) / 2


def learnt(network) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]


def save_checkpoint(work: Path, network, optimizer, first: int, tokens: int, rows: list[list]) -> None:
    """Weights, AdamW's averages and where to go on, in one file."""
    tensors = {}
    for name, parameter in learnt(network):
        average = optimizer.state[parameter]
        tensors |= {name: parameter.detach(), f"{name}/m": average["exp_avg"], f"{name}/v": average["exp_avg_sq"]}
    work.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, work.with_suffix(".partial"), {"state": json.dumps([first, tokens, rows])})
    os.replace(work.with_suffix(".partial"), work)


def load_checkpoint(work: Path, network, optimizer) -> tuple[int, int, list[list]]:
    """The step to go on with, the tokens seen before it, and the curve's rows until then."""
    if not work.exists():
        return 1, 0, []
    with safe_open(work, "pt") as file:
        first, tokens, rows = json.loads(file.metadata()["state"])
        for name, parameter in learnt(network):
            parameter.data.copy_(file.get_tensor(name))
            optimizer.state[parameter] = {
                "step": torch.tensor(first - 1.0),
                "exp_avg": file.get_tensor(f"{name}/m"),
                "exp_avg_sq": file.get_tensor(f"{name}/v"),
            }
    print(f"going on at step {first}, from {work}", flush=True)
    return first, tokens, rows


if __name__ == "__main__":
    main()
