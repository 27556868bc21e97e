"""Chat models of some thousand random parameters, one per family, in folders like those that a hub keeps.

Special tokens, EOS, padding, BOS and the chat template are in the manner of each family; the templates are written
here and say only what this project's prompts need.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tiny_models
import torch

QUESTION, ANSWER, NOW = "发烧三天了。", "多喝水。", "还咳嗽怎么办？"
MESSAGES = "{% for message in messages %}"
END = "{% endfor %}{% if add_generation_prompt %}"

ALL_LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@dataclass(frozen=True)
class Family:
    network: str
    """The causal language model's class in transformers."""
    special: list[str]
    eos: str
    prompt: str
    """What QUESTION, ANSWER and NOW become, with thinking off."""
    template: str | None
    bos: str | None = None
    pad: str | None = None
    unk: str | None = None
    writes_bos: bool = False
    """The tokenizer puts BOS before a text by itself."""
    also_ends: list[str] = field(default_factory=list)
    """EOS tokens that only the model's generation config names."""
    padding: str = ""
    """The token that must serve as padding; nothing: `pad` itself."""
    layers: set[str] = field(default_factory=lambda: ALL_LINEAR)
    """The layers that `all-linear` must find."""
    rounds_share_a_row: bool = True
    """Whether a past round is written as it was when it was the last."""
    config: dict[str, Any] = field(default_factory=dict)


CHATML = (
    MESSAGES + "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n" + END + "<|im_start|>assistant\n"
)
CHATML_PROMPT = (
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n{ANSWER}<|im_end|>\n"
    f"<|im_start|>user\n{NOW}<|im_end|>\n<|im_start|>assistant\n"
)
NO_THOUGHT = "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
QWEN = {"special": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], "eos": "<|im_end|>", "pad": "<|endoftext|>",
        "also_ends": ["<|endoftext|>"]}  # fmt: skip

FAMILIES = {
    "qwen2": Family(
        "Qwen2ForCausalLM", **QWEN,
        template="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + CHATML + "{% endif %}",
        prompt="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + CHATML_PROMPT,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM", **QWEN, template=CHATML + NO_THOUGHT, prompt=CHATML_PROMPT + "<think>\n\n</think>\n\n",
        rounds_share_a_row=False,
    ),
    "qwen3_moe": Family(
        "Qwen3MoeForCausalLM", **QWEN, template=CHATML + NO_THOUGHT, prompt=CHATML_PROMPT + "<think>\n\n</think>\n\n",
        layers={"q_proj", "k_proj", "v_proj", "o_proj"},
        rounds_share_a_row=False,
        config={"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    ),
    "llama": Family(
        "LlamaForCausalLM", bos="<|begin_of_text|>", eos="<|eot_id|>", writes_bos=True,
        special=["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                 "<|reserved_special_token_0|>"],
        also_ends=["<|end_of_text|>"], padding="<|reserved_special_token_0|>",
        template="{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\n"
                 "Today Date: {{ strftime_now('%d %b %Y') }}<|eot_id|>"
                 + MESSAGES + "<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
                 "{{ message.content | trim }}<|eot_id|>" + END
                 + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        prompt="<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024<|eot_id|>"
               f"<|start_header_id|>user<|end_header_id|>\n\n{QUESTION}<|eot_id|>"
               f"<|start_header_id|>assistant<|end_header_id|>\n\n{ANSWER}<|eot_id|>"
               f"<|start_header_id|>user<|end_header_id|>\n\n{NOW}<|eot_id|>"
               "<|start_header_id|>assistant<|end_header_id|>\n\n",
    ),
    "glm4": Family(
        "Glm4ForCausalLM", eos="<|endoftext|>", pad="<|endoftext|>", padding="[MASK]", rounds_share_a_row=False,
        special=["<|endoftext|>", "[MASK]", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>"],
        also_ends=["<|user|>", "<|observation|>"],
        template="[gMASK]<sop>" + MESSAGES + "<|{{ message.role }}|>\n{{ message.content }}" + END
                 + "<|assistant|>{% endif %}",
        prompt=f"[gMASK]<sop><|user|>\n{QUESTION}<|assistant|>\n{ANSWER}<|user|>\n{NOW}<|assistant|>",
        layers={"q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"},
    ),
    "ernie4_5": Family(
        "Ernie4_5ForCausalLM", bos="<s>", eos="</s>", pad="<unk>", unk="<unk>",
        special=["<unk>", "<s>", "</s>", "<|begin_of_sentence|>", "<|end_of_sentence|>"],
        template="<|begin_of_sentence|>" + MESSAGES + "{% if message.role == 'user' %}User: {{ message.content }}\n"
                 "{% else %}Assistant: {{ message.content }}<|end_of_sentence|>{% endif %}" + END
                 + "{{ 'Assistant: ' }}{% endif %}",
        prompt=f"<|begin_of_sentence|>User: {QUESTION}\nAssistant: {ANSWER}<|end_of_sentence|>User: {NOW}\nAssistant: ",
    ),
    "hunyuan": Family(
        "HunYuanDenseV1ForCausalLM", bos="<｜hy_begin▁of▁sentence｜>", eos="<｜hy_place▁holder▁no▁2｜>",
        pad="<｜hy_▁pad▁｜>", rounds_share_a_row=False,
        special=["<｜hy_begin▁of▁sentence｜>", "<｜hy_User｜>", "<｜hy_Assistant｜>", "<｜hy_place▁holder▁no▁2｜>",
                 "<｜hy_▁pad▁｜>"],
        template="{{ bos_token }}" + MESSAGES + "{% if message.role == 'user' %}<｜hy_User｜>{{ message.content }}"
                 "{% else %}<｜hy_Assistant｜>{{ message.content }}<｜hy_place▁holder▁no▁2｜>{% endif %}" + END
                 + "<｜hy_Assistant｜>" + NO_THOUGHT,
        prompt=f"<｜hy_begin▁of▁sentence｜><｜hy_User｜>{QUESTION}<｜hy_Assistant｜>{ANSWER}<｜hy_place▁holder▁no▁2｜>"
               f"<｜hy_User｜>{NOW}<｜hy_Assistant｜><think>\n\n</think>\n\n",
    ),
    "gemma3": Family(
        "Gemma3ForCausalLM", bos="<bos>", eos="<eos>", pad="<pad>", unk="<unk>", writes_bos=True,
        special=["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"], also_ends=["<end_of_turn>"],
        template="{{ bos_token }}" + MESSAGES + "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
                 "{{ raise_exception('roles must alternate') }}{% endif %}"
                 "<start_of_turn>{{ 'model' if message.role == 'assistant' else message.role }}\n"
                 "{{ message.content | trim }}<end_of_turn>\n" + END + "{{ '<start_of_turn>model\n' }}{% endif %}",
        prompt=f"<bos><start_of_turn>user\n{QUESTION}<end_of_turn>\n<start_of_turn>model\n{ANSWER}<end_of_turn>\n"
               f"<start_of_turn>user\n{NOW}<end_of_turn>\n<start_of_turn>model\n",
        config={"sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "phi3": Family(
        "Phi3ForCausalLM", bos="<s>", eos="<|endoftext|>", pad="<|endoftext|>", unk="<unk>", padding="<unk>",
        special=["<unk>", "<s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"], also_ends=["<|end|>"],
        template=MESSAGES + "<|{{ message.role }}|>\n{{ message.content }}<|end|>\n" + END
                 + "{{ '<|assistant|>\n' }}{% endif %}",
        prompt=f"<|user|>\n{QUESTION}<|end|>\n<|assistant|>\n{ANSWER}<|end|>\n<|user|>\n{NOW}<|end|>\n<|assistant|>\n",
        layers={"qkv_proj", "o_proj", "gate_up_proj", "down_proj"},
    ),
    "mistral": Family(  # a base model: no chat template, no padding
        "MistralForCausalLM", bos="<s>", eos="</s>", unk="<unk>", special=["<unk>", "<s>", "</s>"],
        template=None, writes_bos=True, padding="<unk>",
        prompt=f"<s>病人：{QUESTION}\n医生：{ANSWER}</s>\n病人：{NOW}\n医生：",
    ),
}  # fmt: skip


def tokenizer(family: Family) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(
        tiny_models.TEXTS,
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=family.special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if family.writes_bos:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, bpe.token_to_id(family.bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=family.bos, eos_token=family.eos, pad_token=family.pad, unk_token=family.unk,
        chat_template=family.template, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def write(to: Path, family: Family) -> None:
    """Save a network with random weights, its tokenizer and its generation config into the folder `to`."""
    import transformers

    words = tokenizer(family)
    network_class = getattr(transformers, family.network)
    ends = [words.convert_tokens_to_ids(token) for token in [family.eos, *family.also_ends]]
    config = network_class.config_class(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=512, bos_token_id=words.bos_token_id,
        eos_token_id=ends if len(ends) > 1 else ends[0], pad_token_id=words.pad_token_id, **family.config,
    )  # fmt: skip
    torch.manual_seed(0)
    network = network_class(config)
    tiny_models.randomize(network.parameters(), 0)
    network.save_pretrained(to)
    words.save_pretrained(to)
