"""The sizes and special ids of a first-generation ChatGLM, in the key names of its own config.json."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

SECOND_GENERATION_KEYS = ("padded_vocab_size", "ffn_hidden_size", "multi_query_attention", "kv_channels")
"""ChatGLM2 and ChatGLM3 also call themselves `model_type: chatglm`; these keys of theirs give them away."""


@strict
class ChatGLMConfig(PreTrainedConfig):
    """Configuration of `THUDM/chatglm-6b` and of smaller models of its kind; the defaults are those of the 6B model.

    The standard names (`num_hidden_layers`, `intermediate_size`, …) read and write the original ones.

    Raises:
        ValueError: the sizes do not divide, or the file asks for something that this module does not do (1-D
            positions, 4- or 8-bit weights made by the original code, a p-tuning prefix, a later generation).
    """

    model_type = "chatglm"
    keys_to_ignore_at_inference = ["past_key_values"]
    attribute_map = {
        "num_hidden_layers": "num_layers",
        "intermediate_size": "inner_hidden_size",
        "max_position_embeddings": "max_sequence_length",
        "layer_norm_eps": "layernorm_epsilon",
    }

    vocab_size: int = 130528
    """More than the tokenizer's 130344 pieces: the last rows are padding."""
    hidden_size: int = 4096
    num_layers: int = 28
    num_attention_heads: int = 32
    inner_hidden_size: int = 0
    """Width of the MLP; 0, or no entry in the file, means 4 × hidden_size."""
    max_sequence_length: int = 2048
    layernorm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    position_encoding_2d: bool = True
    use_cache: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: int | None = 3
    mask_token_id: int = 130000
    gmask_token_id: int = 130001
    bos_token_id: int = 130004
    """<sop>: the border between the context, which sees itself in both directions, and the answer."""
    eos_token_id: int | list[int] | None = 130005

    def __post_init__(self, **kwargs: Any) -> None:
        later = [key for key in SECOND_GENERATION_KEYS if key in kwargs]
        if later:
            raise ValueError(f"config.json: `{later[0]}` belongs to ChatGLM2 or later, not to the first ChatGLM-6B")
        if kwargs.pop("quantization_bit", 0):
            raise ValueError("config.json: `quantization_bit` is not supported; take the unquantized THUDM/chatglm-6b")
        if kwargs.pop("pre_seq_len", None):
            raise ValueError("config.json: `pre_seq_len` (p-tuning) is not supported; remove the key and use LoRA")
        if not self.position_encoding_2d:
            raise ValueError("config.json: `position_encoding_2d` must be true; ChatGLM-6B has no other positions")
        if self.hidden_size % self.num_attention_heads or self.hidden_size // self.num_attention_heads % 4:
            raise ValueError(
                f"config.json: `hidden_size` {self.hidden_size} must be a multiple of 4 × `num_attention_heads` "
                f"({self.num_attention_heads}): each head rotates two even halves"
            )
        self.inner_hidden_size = self.inner_hidden_size or 4 * self.hidden_size
        for dead in ("prefix_projection", "auto_map"):  # the latter names remote code, which a saved copy must not
            kwargs.pop(dead, None)
        super().__post_init__(**kwargs)
