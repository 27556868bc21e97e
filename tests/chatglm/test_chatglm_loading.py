"""Folders on disk: who knows `model_type: chatglm`, which configurations are refused, what saving writes."""

import json
import subprocess
import sys

import pytest
import torch
from chatglm_cases import FIXTURE, ROOT, close, load
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoTokenizer

from stages.models.chatglm.configuration import ChatGLMConfig
from stages.models.chatglm.modeling import ChatGLMForCausalLM

LOAD = """
c, m, t = (getattr(transformers, name).from_pretrained(sys.argv[1])
           for name in ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"))
print(*(type(x).__module__ for x in (c, m, t)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "first",
    [
        "chatglm.register(); import transformers",
        "import transformers; chatglm.register(); chatglm.register()",
        "from transformers.generation import GenerationMixin; chatglm.register(); import transformers",
    ],
)
def test_register_lets_transformers_load_it(first, tiny):
    """In a stranger's script, before or after transformers is imported, and twice if need be."""
    done = script(f"{first}\n{LOAD}", tiny)
    expected = [f"stages.models.chatglm.{name}" for name in ("configuration", "modeling", "tokenization")]
    assert done.stdout.split() == expected, done.stderr


def test_nothing_is_registered_unasked(tiny):
    """Not by an import, nor by a configuration that someone makes; and the import itself loads nothing heavy."""
    light = "assert not {'torch', 'transformers'} & sys.modules.keys()"
    made = "import transformers\nfrom stages.models.chatglm.configuration import ChatGLMConfig\nChatGLMConfig()"
    done = script(f"{light}\n{made}\n{LOAD}", tiny)
    assert done.returncode and "chatglm" in done.stderr and not done.stdout, done.stderr


def script(code, folder):
    code = f"import sys\nfrom stages.models import chatglm\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"multi_query_attention": True}, "ChatGLM2"),
        ({"quantization_bit": 4}, "quantization_bit"),
        ({"pre_seq_len": 128}, "pre_seq_len"),
        ({"position_encoding_2d": False}, "position_encoding_2d"),
        ({"hidden_size": 40, "num_attention_heads": 4}, "hidden_size"),
    ],
)
def test_other_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=f"config.json: .*{message}"):
        ChatGLMConfig(**change)


def test_config_keeps_original_and_standard_names():
    config = AutoConfig.from_pretrained(FIXTURE / "model")
    assert type(config) is ChatGLMConfig
    assert (config.num_hidden_layers, config.intermediate_size, config.max_position_embeddings) == (3, 256, 256)
    hub = {"auto_map": {"AutoModel": "modeling_chatglm.X"}, "quantization_bit": 0, "pre_seq_len": None}
    saved = ChatGLMConfig(**hub).to_dict()
    assert not {"auto_map", "quantization_bit", "pre_seq_len"} & saved.keys()
    with torch.device("meta"):
        full = ChatGLMForCausalLM(ChatGLMConfig())
    assert sum(p.numel() for p in full.parameters()) == 6_173_286_400


def test_saving_writes_both_names_and_loads_tied(tmp_path, sdpa, cases):
    sdpa.save_pretrained(tmp_path)
    saved, original = load_file(tmp_path / "model.safetensors"), load_file(FIXTURE / "model" / "model.safetensors")
    assert saved.keys() == original.keys()
    assert all(torch.equal(saved[name], original[name]) for name in original)
    saved["lm_head.weight"] = saved["lm_head.weight"] + 1  # the reference ties over a head that differs
    saved["transformer.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(saved, tmp_path / "model.safetensors", {"format": "pt"})
    again = load(tmp_path)
    assert again.lm_head.weight is again.transformer.word_embeddings.weight
    with torch.no_grad():
        close(again(cases["single_prompt.input_ids"]).logits, cases["single_prompt.logits"])


def test_a_folder_such_as_the_hub_has_it(tmp_path, tiny):
    """The original config.json and tokenizer_config.json, with their keys and their pointers to remote code."""
    for name in ("model.safetensors", "ice_text.model"):
        (tmp_path / name).write_bytes((tiny / name).read_bytes())
    kept = ("bos_token_id", "eos_token_id", "mask_token_id", "gmask_token_id", "pad_token_id", "hidden_size",
            "inner_hidden_size", "layernorm_epsilon", "max_sequence_length", "model_type", "num_attention_heads",
            "num_layers", "position_encoding_2d", "use_cache", "vocab_size")  # fmt: skip
    ours = json.loads((tiny / "config.json").read_text())
    remote = {"AutoConfig": "configuration_chatglm.ChatGLMConfig", "AutoModel": "modeling_chatglm.ChatGLMModel"}
    more = {"_name_or_path": "THUDM/chatglm-6b", "architectures": ["ChatGLMModel"], "auto_map": remote,
            "pre_seq_len": None, "prefix_projection": False, "quantization_bit": 0, "torch_dtype": "float16",
            "transformers_version": "4.23.1"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps({key: ours[key] for key in kept} | more))
    hub = {"tokenizer_class": "ChatGLMTokenizer", "num_image_tokens": 0, "do_lower_case": False,
           "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]}}  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(hub))
    found, ids = load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)("我发烧了", return_tensors="pt").input_ids
    assert found.dtype == torch.float16
    with torch.no_grad():
        assert torch.equal(found.float()(ids).logits, load(tiny).half().float()(ids).logits)
