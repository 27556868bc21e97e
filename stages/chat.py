"""Talk with a model in the terminal, or answer piped questions, one a line, as JSON lines.

python -m stages.chat
python -m stages.chat --model sft --compare base
python -m stages.chat < questions.txt > answers.jsonl
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.models import base_model
from stages.predict import PredictConfig
from stages.runtime import params, processes
from stages.runtime.command import command
from stages.runtime.errors import UserError
from stages.serving import model_names, terminal
from stages.serving.model_names import Name
from stages.text.records import History

if TYPE_CHECKING:
    from stages.serving.chat_models import Reply

NOTICE = (
    "A research example: it gives no medical advice. Do not act on an answer; ask a doctor.\n"
    "仅为研究示例，不构成医疗建议，请勿按照回答行事；身体不适请就医。"
)
OTHER = {Name.ppo: Name.sft, Name.sft: Name.base, Name.base: Name.ppo}


@command
def main(
    model: Annotated[Name, typer.Option(help="the model that answers")] = Name.ppo,
    compare: Annotated[bool, typer.Option("--compare", help="let a second model answer too")] = False,
    other: Annotated[
        Name | None,
        typer.Argument(help="with --compare: the second model; else sft joins ppo, base sft, ppo base"),
    ] = None,
    base: Annotated[Path, typer.Option(help="folder of the base model")] = Path("models/base"),
    sft: Annotated[Path, typer.Option(help="folder of the sft adapter")] = Path("models/sft"),
    ppo: Annotated[Path, typer.Option(help="folder of the ppo adapter")] = Path("models/ppo"),
    params_file: Annotated[Path, typer.Option("--params", help="parameters; `predict` says how to decode")] = Path(
        "params.yaml"
    ),
) -> None:
    """Talk with a model. It gives no medical advice."""
    if other is not None and not compare:
        raise UserError(f"`{other}` alone has no meaning: `--model {other}` chooses it, `--compare {other}` adds it")
    if other == model:
        raise UserError(f"--compare needs another model than {model}")
    names = [model, other or OTHER[model]] if compare else [model]
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "predict", PredictConfig)
    frozen_base = base_model.read(base)

    def folders(name: Name) -> list[Path]:
        return model_names.resolve(name, frozen_base, sft, ppo)

    stacks = {name: folders(name) for name in names}  # a stack that does not fit ends here, before any weight is read
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    print(NOTICE, file=sys.stdout if interactive else sys.stderr, flush=True)

    from stages.serving.chat_models import ChatModels
    from stages.serving.repl import Repl

    with ChatModels(frozen_base, processes.device(), config.merge_adapters) as models:
        for name, adapters in stacks.items():
            models.add(name, adapters)

        def ask(
            name: Name, history: History, question: str, number: int, show: Callable[[str], None] = lambda piece: None
        ) -> "Reply":
            return models.answer(
                name,
                history,
                question,
                f"{seed}/{number}",
                config,
                config.max_source_length,
                config.max_new_tokens,
                show,
            )

        if interactive:
            print(f"\n{' and '.join(names)} on {terminal.harmless(frozen_base.model.name)}. /help lists the commands.")
            Repl(models, names, folders, ask, NOTICE).run()
        else:
            answer_lines(names, ask)


def answer_lines(names: list[Name], ask: Callable[[Name, History, str, int], "Reply"]) -> None:
    """Answer each line of the standard input by itself; a row per question and model."""
    for stream in (sys.stdin, sys.stdout):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    questions = (line.strip() for line in sys.stdin)
    for number, question in enumerate(question for question in questions if question):
        for name in names:
            reply = ask(name, [], question, number)
            row = {"model": name, "instruction": question, "predict": reply.text, "ended": reply.ended}
            print(json.dumps(row, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    typer.run(main)
