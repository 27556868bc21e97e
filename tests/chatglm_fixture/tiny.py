"""A tiny random ChatGLM with a tokenizer of its own, for tests that must do without `ice_text.model`."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SENTENCES = (
    "医生您好，我发烧三天了，体温38.5度，伴有干咳。",
    "您好，建议多喝水，注意休息，如有发热请就医。",
    "请问需要做核酸检测吗？我应该怎么办？",
    "可以先观察，在家隔离，戴好口罩，勤洗手。",
    "[Round 0] 问：晚上睡不着应该怎么办 答：睡前不要看手机。",
)
CONTROL = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")
WHITESPACE = ("<n>", "<|tab|>", *(f"<|blank_{n}|>" for n in range(2, 81)))


def train_sentencepiece(sentences: Iterable[str]) -> bytes:
    """A SentencePiece model with the pieces that ChatGLM needs, byte fallback included; about 500 pieces."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=512,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc",
        byte_fallback=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=3,
        control_symbols=list(CONTROL),
        user_defined_symbols=list(WHITESPACE),
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def build_tiny_chatglm(folder: Path, sentences: Iterable[str] = SENTENCES, seed: int = 0, **config: Any) -> Path:
    """Write a loadable model folder: config.json, model.safetensors, ice_text.model, tokenizer_config.json.

    Args:
        folder: made if missing.
        sentences: what the tokenizer learns its pieces from.
        seed: of the weights.
        config: `round_start` for the tokenizer; anything else for `ChatGLMConfig`, over the tiny defaults.

    Returns:
        `folder`.
    """
    import torch

    from stages.models.chatglm.configuration import ChatGLMConfig
    from stages.models.chatglm.modeling import ChatGLMForCausalLM
    from stages.models.chatglm.tokenization import ChatGLMTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "ice_text.model"
    vocabulary.write_bytes(train_sentencepiece(sentences))
    tokenizer = ChatGLMTokenizer(str(vocabulary), round_start=config.pop("round_start", 0))
    tokenizer.save_pretrained(folder)
    sizes = {
        "vocab_size": -(-len(tokenizer) // 64) * 64,  # as in the real one, some rows stand for no piece
        "hidden_size": 32,
        "num_layers": 2,
        "num_attention_heads": 2,
        "max_sequence_length": 256,
        "initializer_range": 0.3,  # at the usual 0.02 the residual drowns attention, and LoRA on it could learn nothing
        "pad_token_id": tokenizer.pad_token_id,
        "mask_token_id": tokenizer.mask_token_id,
        "gmask_token_id": tokenizer.gmask_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        ChatGLMForCausalLM(ChatGLMConfig(**sizes | config)).save_pretrained(folder)
    return folder
