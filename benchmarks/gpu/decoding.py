"""Decoding: our loop, the same recorded as CUDA graphs, and transformers' own, against the roofline.

    python -m benchmarks.gpu.decoding [--tiny]

The roofline is the time to read the weights and the keys and values once per token at the memory's bandwidth.
"""

from typing import Any

import torch

from benchmarks import memory
from benchmarks.gpu import networks
from benchmarks.gpu.session import Numbers, Session
from stages.generation import graphs, loop
from stages.generation.decoding import PLAIN
from stages.generation.generate import generate

SHAPES = {"qwen3-0.6b": "Qwen/Qwen3-0.6B", "qwen3-1.7b": "Qwen/Qwen3-1.7B", "chatglm-6b": "models/chatglm-6b"}
ROWS = (8, 32, 64)
WAYS = ("loop", "graphs", "transformers", "transformers static")


def main(argv: list[str] | None = None) -> None:
    session = Session("decoding", "decoding: eager, static cache, graphs, the roofline", argv)
    rows, prompt, new = ((2,), 12, 10) if session.tiny else (ROWS, 512, 128)
    for name, known in SHAPES.items():
        shape = memory.SHAPES[known]
        shape = networks.TINY[shape.chatglm] if session.tiny else shape
        wanted = [f"{name}, {count} rows, {way}" for count in rows for way in WAYS]
        if set(wanted) <= set(session.cases):
            continue
        model = networks.make(shape, "float32" if session.tiny else "bfloat16", session.device)
        for count in rows:
            for way in WAYS:
                session.run(
                    f"{name}, {count} rows, {way}",
                    lambda c=count, w=way, m=model, s=shape: decode(session, m, s, w, c, prompt, new),
                )
        graphs.Storage.known.clear()
        del model
    session.end(len(SHAPES) * len(rows) * len(WAYS))


def decode(session: Session, model: Any, shape: memory.Shape, way: str, rows: int, prompt: int, new: int) -> Numbers:
    asked = networks.prompts(shape, rows, prompt)

    def by_loop() -> None:
        answers = generate(
            model, asked, list(map(str, range(rows))), PLAIN, new, rows, [shape.vocab], networks.PAD,
            with_graphs=way == "graphs",
        )  # fmt: skip
        assert all(len(answer.ids) == new for _, answer in answers)

    def by_transformers() -> None:
        ids = torch.tensor(asked, device=session.device)
        more = {"cache_implementation": "static"} if way.endswith("static") else {}
        with torch.no_grad():
            model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=True,
                top_k=0, **more,
            )  # fmt: skip

    assert loop.why_not(model) is None
    taken = session.seconds(by_loop if way in ("loop", "graphs") else by_transformers, repeats=2)
    width = next(model.parameters()).element_size()
    kept = 2 * shape.layers * shape.kv_heads * shape.head_dim * width * rows * (prompt + new / 2)
    floor = (shape.parameters * width + kept) / session.peaks()[1]
    return {
        "ms_per_token": 1e3 * taken / new,
        "tokens_per_s": rows * new / taken,
        "roofline_ms": 1e3 * floor,
        "times_roofline": taken / new / floor,
    }


if __name__ == "__main__":
    main()
