"""Measure the answers of everything that is compared: text metrics, both reward models, distance from the SFT model.

python -m controls.evaluate --help
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from controls import judges, options
from controls.models import MODELS
from stages.metrics.probes import Text
from stages.models import stack
from stages.runtime import atomic, params, processes
from stages.runtime.command import command
from stages.scoring import rows
from stages.scoring.scorer import EvaluateConfig, Scorer
from stages.text import encoding, records


@command
def main(
    data: Annotated[Path, typer.Option(help="folder of test.jsonl and, if any, facts.jsonl")],
    answers: Annotated[list[Path], typer.Option(help="folders of the answers, `<model>.jsonl`")],
    base: options.Base,
    sft: options.Sft,
    proxy: options.Proxy,
    gold: options.Gold,
    policy: Annotated[list[Path], typer.Option(help="folder of an adapter, named like the model that it makes")],
    to: Annotated[Path, typer.Option(help="folder of the numbers")],
    params_file: options.Params,
) -> None:
    """Write one line of numbers per answer."""
    config = params.load(params_file, "evaluate", EvaluateConfig)
    samples = records.read_samples(data / "test.jsonl")
    facts = rows.read_facts(data, len(samples))
    generated = {model.name: read_answers(model.name, answers, len(samples)) for model in MODELS}
    frozen_base = judges.check(base, [proxy, gold])
    policies = {folder.name: stack.resolve(frozen_base, [sft, folder]) for folder in policy}

    processes.announce("evaluate")
    device = processes.device()  # every process measures everything, as in the run's own evaluation
    tokenizer = frozen_base.tokenizer()
    model = stack.load(frozen_base.causal_lm(device), [sft])
    scorers = {
        name: Scorer(model, judges.add(model, folder, name, device), tokenizer, config)
        for name, folder in (("reward", proxy), ("gold", gold))
    }
    for name, folders in policies.items():
        model.load_adapter(str(folders[-1]), adapter_name=f"policy-{name}", is_trainable=False, torch_device="cpu")

    doctor = [encoding.normalize(tokenizer, sample.output) for sample in samples]
    texts = {
        name: [Text(encoding.normalize(tokenizer, row["predict"]), row.get("eos", True)) for row in each]
        for name, each in generated.items()
    }
    found: dict[str, dict[str, list[float]]] = {name: {} for name in texts}
    for judge, scorer in scorers.items():
        with stack.active(model, [judge]):
            for name, column in scorer.of_answers(samples, texts).items():
                found[name][judge] = column
    for name in policies:
        adapters = [stack.lineage(folder).adapter for folder in policies[name][:-1]] + [f"policy-{name}"]
        found[name]["kl"] = scorers["reward"].kl(samples, texts[name], adapters, ["sft"])
    if not processes.is_first():
        return

    with atomic.folder(to) as folder:
        for name, columns in found.items():
            tokens = [len(scorers["reward"].answer(text)) for text in texts[name]]
            atomic.write_jsonl(folder / f"{name}.jsonl", rows.measured(texts[name], doctor, tokens, facts, **columns))


def read_answers(name: str, folders: list[Path], count: int) -> list[dict[str, Any]]:
    """The answers of a model, from the first of the folders that has them."""
    path = next((folder / f"{name}.jsonl" for folder in folders if (folder / f"{name}.jsonl").is_file()), None)
    return rows.read(path or folders[0] / f"{name}.jsonl", count, "predict")


if __name__ == "__main__":
    typer.run(main)
