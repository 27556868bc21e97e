"""The original, pickled checkpoint of ChatGLM-6B → safetensors. Run it once on a downloaded folder:

    hf download THUDM/chatglm-6b --local-dir chatglm-6b-original
    python -m stages.models.chatglm.convert chatglm-6b-original chatglm-6b

Only tensors are read: a checkpoint that would run code is refused. One shard is in memory at a time.
"""

import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer

from stages.runtime import atomic
from stages.runtime.command import command
from stages.runtime.errors import UserError

KEPT_FILES = ("config.json", "ice_text.model", "tokenizer_config.json", "generation_config.json", "MODEL_LICENSE")
RECOMPUTED = "rotary_emb.inv_freq"
TIED = "lm_head.weight"


@command
def main(
    source: Annotated[Path, typer.Argument(help="folder with pytorch_model*.bin, config.json and ice_text.model")],
    target: Annotated[Path, typer.Argument(help="folder to write; must not exist")],
) -> None:
    """Convert pickled ChatGLM-6B weights to safetensors."""
    convert(source, target)
    print(f"{target}: written; set model.name to it")


def convert(source: Path, target: Path) -> None:
    """Write `target` whole or not at all.

    Raises:
        UserError: `source` lacks a file, holds anything but tensors, or its tensors are not those that its config.json
            describes; or `target` exists or can't be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if target.exists():
        raise UserError(f"{target}: exists already; name a new folder")
    for name in KEPT_FILES[:2]:
        if not (source / name).is_file():
            raise UserError(f"{source}: has no {name}; download all of THUDM/chatglm-6b")
    files = _shards(source)
    expected = _expected_shapes(source)
    weight_map: dict[str, str] = {}
    total_size = 0
    with atomic.folder(target) as folder:
        for number, file in enumerate(files, start=1):
            name = "model.safetensors" if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
            tensors = {key: value for key, value in _read(file).items() if not key.endswith(RECOMPUTED)}
            for key, tensor in tensors.items():
                if expected.get(key) != tuple(tensor.shape):
                    raise UserError(
                        f"{file}: `{key}` is {list(tensor.shape)}, but config.json asks for "
                        f"{list(expected[key]) if key in expected else 'none'}; it is not a ChatGLM-6B checkpoint"
                    )
                weight_map[key] = name
                total_size += tensor.numel() * tensor.element_size()
            # safetensors refuses tensors that share memory, as a tied head may
            copies = {key: tensor.clone().contiguous() for key, tensor in tensors.items()}
            try:
                save_file(copies, folder / name, {"format": "pt"})
            except SafetensorError as error:  # what it makes of a full disk
                raise UserError(f"{target}: can't be written ({error}); free space and run again") from error
        missing = sorted(expected.keys() - weight_map.keys() - {TIED})
        if missing:
            raise UserError(f"{source}: no file has `{missing[0]}` ({len(missing)} missing); download it again")
        if len(files) > 1:
            index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
            atomic.write_json(folder / "model.safetensors.index.json", index)
        for name in KEPT_FILES:
            if (source / name).is_file():
                shutil.copyfile(source / name, folder / name)


def _shards(source: Path) -> list[Path]:
    index = source / "pytorch_model.bin.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = ["pytorch_model.bin"]
    for name in names:
        if Path(name).name != name or not (source / name).is_file():
            raise UserError(f"{source}: has no {name}; download all of THUDM/chatglm-6b")
    return [source / name for name in names]


def _read(file: Path) -> dict[str, Any]:
    import torch

    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{file}: not a file of plain tensors ({str(error).splitlines()[0]})") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise UserError(f"{file}: not a file of named tensors")
    return tensors


def _expected_shapes(source: Path) -> dict[str, tuple[int, ...]]:
    import torch

    from stages.models.chatglm.configuration import ChatGLMConfig
    from stages.models.chatglm.modeling import ChatGLMForCausalLM

    try:
        config = ChatGLMConfig.from_pretrained(str(source))
    except ValueError as error:
        raise UserError(f"{source}: {error}") from error
    with torch.device("meta"):
        model = ChatGLMForCausalLM(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


if __name__ == "__main__":
    typer.run(main)
