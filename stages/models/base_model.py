"""The frozen base: `models/base/` on disk ↔ tokenizer and module.

The folder holds `base.json`, which says what the base is and how to load it, and for the built-in `tiny` model the
weights and the tokenizer too. Every later stage reads all of this from there: none needs the `model` section itself.
"""

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from stages.models import hub, local_model, sequence_classifier, sharding
from stages.runtime import atomic, params, portable, processes, resume
from stages.runtime.errors import UserError
from stages.text import encoding

POINTER = "base.json"
TINY = "tiny"


class ModelConfig(params.Section):
    """The `model` section of params.yaml."""

    name: Annotated[str, Field(min_length=1, max_length=255)] = "data/base"
    """`tiny`, a Hugging Face id, or a local folder."""
    revision: str | None = None
    """Branch, tag or commit on the hub; resolved to a commit and recorded."""
    trust_remote_code: bool = False
    """Run the model repository's own code. Needs `revision` to be a full commit (with a local folder, the commit that
    it is a copy of)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of the frozen weights; LoRA weights and heads stay in float32."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"
    """Which attention kernel to use."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """Load the base in 8 or 4 bits (QLoRA); needs `pip install '.[quantization]'`, and a GPU to be of use."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    fsdp: bool = False
    """Shard the base's layers over the processes of each machine (FSDP2), which gather each layer when it runs: for a
    base that does not fit one GPU. Without effect in a single process."""
    deterministic: bool = False
    """On GPUs: only kernels that add up in a fixed order, so that the same GPU gives the same bytes again; slower. What
    has no such kernel ends in an error."""
    portable: bool = False
    """On a CPU: the same bytes on every x86-64 processor with AVX2, for about twice the CPU time."""
    cpu_threads: Annotated[int, Field(ge=1, le=256)] | None = 1
    """Threads of torch on a CPU, however many cores there are. Another number rounds sums differently. null leaves it to
    torch, which takes all cores: for a small model quicker where nothing else runs, far slower where something does."""
    chatglm_first_round: Annotated[int, Field(ge=0, le=1)] = 0
    """Which prompt ChatGLM-6B gets, by the number of its first round: 0 its own, which the tutorial had; 1 that of
    ChatGLM2, which the tutorial's tool changed to later. Other models have a chat template and do not read this."""

    @model_validator(mode="after")
    def _can_be_loaded(self) -> "ModelConfig":
        if self.trust_remote_code and not hub.is_commit(self.revision):
            raise ValueError("trust_remote_code runs code from the hub: pin `revision` to a full 40-digit commit")
        if self.fsdp and self.deterministic:
            raise ValueError("fsdp adds up in no fixed order: set fsdp or deterministic to false")
        if self.fsdp and self.quantization != "none":
            raise ValueError("fsdp can't shard quantized weights: set fsdp to false, or quantization to none")
        if self.portable and self.dtype == "float16":
            raise ValueError("portable needs the fused optimizer, which float16 can't use: set dtype to float32 or bfloat16")
        return self


@dataclass(frozen=True)
class Base:
    """What `base.json` says, and where it lies."""

    folder: Path
    model: ModelConfig
    identity: str
    """`tiny:<hash>`, `hub:<name>@<commit>` or `local:<hash>`: what an adapter records as its base."""
    files: dict[str, int]
    """Names and sizes of the files behind a local folder's hash, to notice a change without hashing gigabytes."""

    def tokenizer(self) -> Any:
        """The tokenizer, padding on the left, with a pad token that is not EOS."""
        with hub.clear_errors(self.model.name, self.model.revision):
            from transformers import AutoTokenizer

            _register_native_models()
            tokenizer = AutoTokenizer.from_pretrained(self._source(), padding_side="left", **self._local())
        if hasattr(tokenizer, "round_start"):
            tokenizer.round_start = self.model.chatglm_first_round
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
        model = self._load(sequence_classifier.of(self._config()), device, num_labels=1)
        model.score.float()
        return model

    def skeleton(self) -> Any:
        """The network without weights: call it below `torch.device("meta")`."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_config(self._config(), trust_remote_code=self.model.trust_remote_code)

    def check(self) -> None:
        """Read all but the weights, and of a local folder's weights the headers: before anything trains on it.

        Raises:
            UserError: no causal language model, of an unknown architecture, damaged; or its tokenizer has no padding,
                has more tokens than the embedding has rows, or a chat template that fails or leaves the question out.
        """
        from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

        config = self._config()
        if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
            own = _own_code(config)
            if "AutoModelForCausalLM" not in own:
                raise UserError(f"model.name: {self.model.name} ({config.model_type}) is not a causal language model")
            if "AutoModelForSequenceClassification" not in own:
                raise UserError(
                    f"model.name: {self.model.name}: its own code has no AutoModelForSequenceClassification, which the "
                    "reward model needs; choose a model that transformers knows"
                )
        if local_folder(self.model.name).is_dir():
            local_model.check_weights(local_folder(self.model.name))
        _check_tokenizer(self.tokenizer(), config.get_text_config().vocab_size, self.model.name)

    def _config(self) -> Any:
        with hub.clear_errors(self.model.name, self.model.revision):
            from transformers import AutoConfig

            _register_native_models()
            return AutoConfig.from_pretrained(self._source(), **self._local())

    def _load(self, auto_class: Any, device: Any, **more: Any) -> Any:
        import logging

        import torch
        from transformers.utils.logging import set_tqdm_hook

        self._check_files()
        if self.model.deterministic:
            portable.fix_order()
        # False: in hardware, not emulated
        if self.model.dtype == "bfloat16" and not processes.on_cpu() and not torch.cuda.is_bf16_supported(False):
            raise UserError(
                f"model.dtype is bfloat16, which {torch.cuda.get_device_name()} lacks: set it to float16 or float32"
            )
        # Downloads keep their bars; reading weights that are here does not need one.
        set_tqdm_hook(lambda bar, args, kwargs: bar(*args, **(kwargs | {"disable": True})))
        noisy = logging.getLogger("transformers.modeling_utils")
        level, noisy.level = noisy.level, logging.ERROR  # says that `score` is new, which is the point
        try:
            with hub.clear_errors(self.model.name, self.model.revision):
                _register_native_models()
                model = auto_class.from_pretrained(
                    self._source(weights=True),
                    dtype=getattr(torch, self.model.dtype),
                    attn_implementation=self.model.attn_implementation,
                    use_safetensors=True,
                    **self._local(),
                    **_quantization(self.model),
                    **more,
                )
        finally:
            noisy.level = level
        model.requires_grad_(False)
        model.eval()
        if self.model.fsdp and processes.count() > 1:
            return sharding.shard(model, self.model.name)
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):  # the format of 4 bits for such CPUs has no gradients
                module.support_avx512bf16_for_cpu = False
        quantized = self.model.quantization != "none"
        return model if device is None or quantized else model.to(device)

    def _source(self, weights: bool = False) -> Path:
        if self.model.name == TINY:
            return self.folder
        if self.identity.startswith("hub:"):
            return hub.download(self.model.name, self.identity.rpartition("@")[2], weights)
        return local_folder(self.model.name)

    def _local(self) -> dict[str, Any]:
        # Left out, transformers would ask on the terminal whether to trust.
        return {"local_files_only": True, "trust_remote_code": self.model.trust_remote_code}

    def _check_files(self) -> None:
        if self.identity.startswith("tiny:"):
            if f"tiny:{local_model.content_hash(self.folder, own_code=False)}" != self.identity:
                raise UserError(
                    f"{self.folder}: its files are not those that {POINTER} describes; run `dvc checkout "
                    f"{self.folder}`, or `dvc repro --force base`"
                )
            return
        if not self.identity.startswith("local:"):
            return
        if local_model.sizes(local_folder(self.model.name), self.model.trust_remote_code) != self.files:
            raise UserError(
                f"{self.model.name}: its files are not those that `{self.folder}` recorded; "
                "run `dvc repro --force base` to take the folder as it is now"
            )


def read(folder: Path) -> Base:
    """Read `base.json`, and choose the kernels that it asks for: call it before torch is imported.

    Raises:
        UserError: it is no `base.json`.
    """
    path = folder / POINTER
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        base = Base(folder, ModelConfig(**document["model"]), document["identity"], document["files"])
        if not isinstance(base.identity, str) or not isinstance(base.files, dict):
            raise TypeError("identity must be a text, and files an object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not the pointer of a base model ({error}); run `dvc repro base`") from None
    portable.use(base.model.portable, base.model.cpu_threads)
    return base


def local_folder(name: str) -> Path:
    """The folder that `model.name` means, if any.

    A temporary experiment runs in a copy of the checkout, without folders that Git ignores: there it is the checkout's.
    """
    path, original = Path(name), resume.checkout() / name
    return original if not path.is_dir() and original.is_dir() else path


def check_name(model: ModelConfig) -> None:
    """Raise UserError when the model's name can't be one, or is a folder without a model; no network, no hashing."""
    local = local_folder(model.name)
    if model.name == TINY:
        return
    if not local.is_dir():
        if model.name.count("/") != 1 or model.name.startswith((".", "/", "~")):
            raise UserError(f"model.name: {model.name} is not `{TINY}`, an existing folder, or a hub id owner/name")
        return
    if not (local / "config.json").is_file():
        raise UserError(f"model.name: {model.name} has no config.json: it is not a model folder")
    if not list(local.glob(local_model.WEIGHTS)):
        raise UserError(
            f"model.name: {model.name} has no {local_model.WEIGHTS}, and pickled weights are not loaded; {_hint(local)}"
        )


def write_pointer(folder: Path, model: ModelConfig) -> None:
    """Resolve a hub id to its commit, or a local folder (`tiny`: `folder` itself) to its content hash, and record it.

    Raises:
        UserError: the model can't be found, reached or used; one line that says which and what to do.
    """
    check_name(model)
    files: dict[str, int] = {}
    local = local_folder(model.name)
    if model.name == TINY:
        identity = f"tiny:{local_model.content_hash(folder, own_code=False)}"
    elif local.is_dir():
        identity = f"local:{local_model.content_hash(local, model.trust_remote_code)}"
        files = local_model.sizes(local, model.trust_remote_code)
    else:
        identity = f"hub:{model.name}@{hub.resolve(model.name, model.revision)}"
    atomic.write_json(folder / POINTER, {"identity": identity, "model": model.model_dump(), "files": files})


def _hint(local: Path) -> str:
    """What to do about a folder with pickled weights."""
    try:
        chatglm = json.loads((local / "config.json").read_text(encoding="utf-8")).get("model_type") == "chatglm"
    except (ValueError, AttributeError):  # no UTF-8, no JSON, no object
        chatglm = False
    if chatglm:
        return f"run `python -m stages.models.chatglm.convert {local} NEW_FOLDER` once and set model.name to NEW_FOLDER"
    return "convert them first"


def _register_native_models() -> None:
    from stages.models import chatglm

    chatglm.register()


def _check_tokenizer(tokenizer: Any, rows: int, name: str) -> None:
    """Raise UserError unless a question reaches the model, as ids that its embedding of so many rows has."""
    from jinja2 import TemplateError

    try:
        one, two = (encoding.encode_prompt(tokenizer, [], text, 2**20, "sft").ids for text in ("发烧", "咳嗽三天 (3)"))
    except (TemplateError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"model.name: {name}: its chat template fails on a question: {reason!r}") from None
    if one == two:
        raise UserError(f"model.name: {name}: its chat template leaves the question out of the prompt")
    highest = max(*one, *two, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.vocab_size - 1)
    if highest >= rows:
        raise UserError(
            f"model.name: {name}: its tokenizer has token {highest}, and its embedding {rows} rows: they are not of one "
            "model"
        )


def _own_code(config: Any) -> dict[str, Any]:
    """The classes that the model's repository brings along: the `Auto…` class → where its own stands."""
    return getattr(config, "auto_map", None) or {}


def _plain_generation_config(model: Any) -> Any:
    """Only the special ids survive from the model's own file: params.yaml sets every sampling parameter."""
    from transformers import GenerationConfig

    old = model.generation_config
    return GenerationConfig(
        bos_token_id=old.bos_token_id, eos_token_id=old.eos_token_id, pad_token_id=old.pad_token_id
    )


def _quantization(model: ModelConfig) -> dict[str, Any]:
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
    """An existing special token to pad with: a new one would need a new row in the frozen embedding.

    The best is one that is meant for padding, then one that no text of this project contains. The reward is read at a
    row's last token before the padding, so BOS will do too: it comes first.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    candidates = [
        *(token for token in special if "pad" in token.lower()),
        tokenizer.unk_token,
        *(token for token in special if "reserved" in token or "unused" in token),
        *(token for token in special if token not in str(tokenizer.chat_template)),
        tokenizer.bos_token,
    ]
    for token in candidates:
        if token and token in tokenizer.get_vocab() and token != tokenizer.eos_token:
            return str(token)
    raise UserError(f"{name}: its tokenizer has no token apart from EOS that could serve as padding")
