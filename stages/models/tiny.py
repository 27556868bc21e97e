"""The built-in stand-in for a chat model: a byte-level BPE tokenizer and a small Qwen3-shaped network, made here."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field, model_validator

from stages.runtime.params import Section, Tokens

Size = Annotated[int, Field(ge=1, le=2**16)]

PAD, UNKNOWN_END, TURN_START, TURN_END = "<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


class Architecture(Section):
    vocab_size: Annotated[int, Field(ge=300, le=2**20)] = 1500
    """Size of the vocabulary: at least the 256 bytes and the special tokens."""
    hidden_size: Size = 192
    """Width of the network."""
    intermediate_size: Size = 512
    """Width of the feed-forward layers."""
    num_hidden_layers: Size = 4
    """Layers."""
    num_attention_heads: Size = 4
    """Heads of a layer's attention."""
    num_key_value_heads: Size = 2
    """Heads of keys and values, which several attention heads share."""
    max_position_embeddings: Tokens = 1024
    """The longest sequence, in tokens."""

    @model_validator(mode="after")
    def _heads_fit(self) -> "Architecture":
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError("hidden_size must be an even multiple of num_attention_heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self


def tokenizer(texts: Sequence[str], architecture: Architecture) -> Any:
    """A byte-level BPE trained on the texts: every string has ids, and decoding gives it back."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=architecture.vocab_size,
        special_tokens=[PAD, UNKNOWN_END, TURN_START, TURN_END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=TURN_END,
        additional_special_tokens=[UNKNOWN_END, TURN_START],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )


def network(architecture: Architecture, tokenizer: Any) -> Any:
    """A Qwen3 causal language model with tied embeddings and random weights (seed torch first)."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.num_hidden_layers,
        num_attention_heads=architecture.num_attention_heads,
        num_key_value_heads=architecture.num_key_value_heads,
        head_dim=architecture.hidden_size // architecture.num_attention_heads,
        max_position_embeddings=architecture.max_position_embeddings,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def renew_special_rows(network: Any, tokenizer: Any) -> None:
    """Give the special tokens embedding rows of their own, after the training on plain text (seed torch first).

    The text never shows them, so training only ever pushed their rows away from it, all of them and every unused byte
    in one direction. A frozen row that is like hundreds of others can't be predicted: an answer would never end.
    """
    import torch

    embedding = network.get_input_embeddings().weight
    with torch.no_grad():
        scale = embedding.norm(dim=1).mean() / embedding.shape[1] ** 0.5
        for index in sorted(tokenizer.all_special_ids):
            drawn = torch.randn(embedding.shape[1])  # on the CPU: everywhere the same
            embedding[index] = scale * drawn.to(embedding.device)
