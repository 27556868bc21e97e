"""The frozen base: `models/base/` on disk ↔ tokenizer and module.

The folder holds `base.json`, which says what the base is and how to load it, and for the built-in `tiny` model the
weights and the tokenizer too. Every later stage reads all of this from there: none needs the `model` section itself.
"""

import hashlib
import importlib.util
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from stages.core import atomic, processes, sharding
from stages.core.errors import UserError

POINTER = "base.json"
TINY = "tiny"
WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class Model:
    """The `model` section of params.yaml."""

    name: str
    """`tiny`, a Hugging Face id, or a local folder."""
    revision: str | None
    """Branch, tag or commit on the hub; resolved to a commit and recorded."""
    trust_remote_code: bool
    """Run the model repository's own code. Needs `revision` to be a full commit."""
    dtype: Literal["float32", "bfloat16", "float16"]
    """Precision of the frozen weights; LoRA weights and heads stay in float32."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"]
    quantization: Literal["none", "8bit", "4bit"]
    """Load the base in 8 or 4 bits (QLoRA); needs `pip install '.[quantization]'`, and a GPU to be of use."""
    gradient_checkpointing: bool
    """Recompute activations in the backward pass: less memory, about a third more time."""
    fsdp: bool
    """Several processes share the base's layers out among them (FSDP2) and fetch each when it is its turn: for a base
    that does not fit one GPU. One process alone takes no notice."""

    def __post_init__(self) -> None:
        if self.trust_remote_code and not _is_commit(self.revision):
            raise ValueError("trust_remote_code runs code from the hub: pin `revision` to a full 40-digit commit")
        if self.fsdp and self.quantization != "none":
            raise ValueError("fsdp can't share quantized weights out: set fsdp to false, or quantization to none")


@dataclass(frozen=True)
class Base:
    """What `base.json` says, and where it lies."""

    folder: Path
    model: Model
    identity: str
    """`tiny:<hash>`, `hub:<name>@<commit>` or `local:<hash>`: what an adapter records as its base."""
    files: dict[str, int]
    """Names and sizes of a local folder's files, to notice a change without hashing gigabytes."""

    @property
    def source(self) -> str:
        return str(self.folder) if self.model.name == TINY else self.model.name

    def tokenizer(self) -> Any:
        """The tokenizer, padding on the left, with a pad token that is not EOS."""
        with _clear_errors(self.model):
            from transformers import AutoTokenizer

            _register_native_models()
            tokenizer = AutoTokenizer.from_pretrained(self.source, padding_side="left", **self._hub_arguments())
        if tokenizer.eos_token_id is None:
            raise UserError(f"{self.model.name}: its tokenizer has no EOS token, so an answer could never end")
        if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
            tokenizer.pad_token = _spare_token(tokenizer, self.model.name)
        return tokenizer

    def causal_lm(self, device: Any = None) -> Any:
        """The language model, frozen, in eval mode, on `device`."""
        from transformers import AutoModelForCausalLM

        model = self._load(AutoModelForCausalLM, device)
        model.generation_config = _plain_generation_config(model)
        return model

    def reward_model(self, device: Any = None) -> Any:
        """The same trunk with a scalar `score` head in float32, initialised at random (seed first)."""
        from transformers import AutoModelForSequenceClassification

        model = self._load(AutoModelForSequenceClassification, device, num_labels=1)
        model.score.float()
        return model

    def _load(self, auto_class: Any, device: Any, **more: Any) -> Any:
        import logging

        import torch

        self._check_files()
        noisy = logging.getLogger("transformers.modeling_utils")
        level, noisy.level = noisy.level, logging.ERROR  # says that `score` is new, which is the point
        try:
            with _clear_errors(self.model):
                _register_native_models()
                model = auto_class.from_pretrained(
                    self.source,
                    dtype=getattr(torch, self.model.dtype),
                    attn_implementation=self.model.attn_implementation,
                    use_safetensors=True,
                    **self._hub_arguments(),
                    **_quantization(self.model),
                    **more,
                )
        finally:
            noisy.level = level
        model.requires_grad_(False)
        model.eval()
        if self.model.fsdp and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            return sharding.shard(model, self.model.name)
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):  # the format of 4 bits for such CPUs has no gradients
                module.support_avx512bf16_for_cpu = False
        quantized = self.model.quantization != "none"
        return model if device is None or quantized else model.to(device)

    def _hub_arguments(self) -> dict[str, Any]:
        if not self.identity.startswith("hub:"):
            return {"local_files_only": True}
        commit = self.identity.rpartition("@")[2]
        return {"revision": commit, "trust_remote_code": self.model.trust_remote_code}

    def _check_files(self) -> None:
        if self.identity.startswith("local:") and _sizes(Path(self.model.name)) != self.files:
            raise UserError(
                f"{self.model.name}: its files are not those that `{self.folder}` recorded; "
                "run `dvc repro --force base` to take the folder as it is now"
            )


def read(folder: Path) -> Base:
    """Read `base.json`. Raises UserError when it is not one."""
    path = folder / POINTER
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Base(folder, Model(**document["model"]), document["identity"], document["files"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the pointer of a base model ({error}); run `dvc repro base`") from None


def write_pointer(folder: Path, model: Model) -> None:
    """Resolve a hub id to its commit, or a local folder (`tiny`: `folder` itself) to its content hash, and record it.

    Raises:
        UserError: the model can't be found, reached or used; one line that says which and what to do.
    """
    files: dict[str, int] = {}
    if model.name == TINY:
        identity = f"tiny:{_content_hash(folder)}"
    elif Path(model.name).is_dir():
        local = Path(model.name)
        if not (local / "config.json").is_file():
            raise UserError(f"model.name: {model.name} has no config.json: it is not a model folder")
        if not list(local.glob(WEIGHTS)):
            raise UserError(
                f"model.name: {model.name} has no *.safetensors: pickled weights are not loaded; convert them first"
            )
        identity, files = f"local:{_content_hash(local)}", _sizes(local)
    else:
        identity = f"hub:{model.name}@{_resolve_commit(model)}"
    atomic.write_json(folder / POINTER, {"identity": identity, "model": asdict(model), "files": files})


def _resolve_commit(model: Model) -> str:
    if "/" not in model.name or model.name.startswith((".", "/", "~")):
        raise UserError(f"model.name: {model.name} is not `{TINY}`, an existing folder, or a hub id owner/name")
    if _is_commit(model.revision):
        return str(model.revision)
    with _clear_errors(model):
        from huggingface_hub import HfApi

        return str(HfApi().model_info(model.name, revision=model.revision).sha)


class _clear_errors:
    """Turn what a model hub or loader raises for a missing, gated or unreachable model into one line with the mend."""

    def __init__(self, model: Model):
        self.model = model

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, UserError) or not isinstance(error, Exception):
            return
        chain: list[BaseException] = []
        seen: BaseException | None = error
        while seen is not None and len(chain) < 10:
            chain.append(seen)
            seen = seen.__cause__ or seen.__context__
        names = {cls.__name__ for e in chain for cls in type(e).__mro__}
        name = self.model.name
        if "GatedRepoError" in names:
            line = f"{name} is gated: accept its terms on its page, then `hf auth login` or set HF_TOKEN"
        elif "RevisionNotFoundError" in names:
            line = f"{name} has no revision {self.model.revision}; correct model.revision"
        elif "RepositoryNotFoundError" in names:
            line = f"{name} was not found on the hub (or is private: `hf auth login`); correct model.name"
        elif names & {"ConnectionError", "ConnectError", "OfflineModeIsEnabled", "LocalEntryNotFoundError", "Timeout",
                      "TimeoutException", "TransportError", "ProxyError"}:
            line = (
                f"{name} can't be fetched: no network. Download it where there is one (`hf download {name}`) and set "
                "model.name to that folder"
            )
        elif isinstance(error, OSError | ValueError | ImportError | KeyError):
            line = f"{name} can't be loaded: {' '.join(str(error).split())[:400]}"
        else:
            return
        raise UserError(f"model.name: {line}") from error


def _register_native_models() -> None:
    from stages.core import chatglm

    chatglm.register()


def _plain_generation_config(model: Any) -> Any:
    """Only the special ids survive from the model's own file: every sampling knob is set by params.yaml."""
    from transformers import GenerationConfig

    old = model.generation_config
    return GenerationConfig(
        bos_token_id=old.bos_token_id, eos_token_id=old.eos_token_id, pad_token_id=old.pad_token_id
    )


def _quantization(model: Model) -> dict[str, Any]:
    if model.quantization == "none":
        return {}
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"model.quantization: {model.quantization} needs bitsandbytes: `.venv/bin/pip install '.[quantization]'`"
        )
    import torch
    from transformers import BitsAndBytesConfig

    here = {"device_map": {"": processes.device()}}  # left alone, every process would load it onto the first GPU
    if model.quantization == "8bit":
        return here | {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    return here | {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, model.dtype),
        )
    }


def _spare_token(tokenizer: Any, name: str) -> str:
    """An existing special token that can stand for padding: a new one would need a new row in the frozen embedding."""
    for token in (tokenizer.unk_token, "<|endoftext|>", "<|finetune_right_pad_id|>", "<|reserved_special_token_0|>"):
        if token and token in tokenizer.get_vocab() and token != tokenizer.eos_token:
            return str(token)
    raise UserError(f"{name}: its tokenizer has no token apart from EOS that could serve as padding")


def _is_commit(revision: str | None) -> bool:
    return revision is not None and len(revision) == 40 and all(c in "0123456789abcdef" for c in revision)


def _model_files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name != POINTER and not p.name.startswith("."))


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in _model_files(folder)}


def _content_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in _model_files(folder):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
