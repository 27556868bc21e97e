"""What fits where: the sizes are those of the models, the method agrees with PyTorch, the READMEs show its output."""

import re
import subprocess

import imports
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from benchmarks import memory, memory_check, scale
from stages.models import chatglm
from stages.models.chatglm.configuration import ChatGLMConfig
from stages.models.lora import LoraConfig

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
CARDS = {
    "chatglm-6b": 24, "chatglm-6b-12gb": 12, "qwen3-0.6b": 24, "qwen3-1.7b": 24,
    "chatglm-6b-80gb": 80, "qwen3-0.6b-80gb": 80, "qwen3-1.7b-80gb": 80,
}  # fmt: skip
"""GB, as the profiles say in their first lines."""


def config(shape: memory.Shape):
    if shape.chatglm:
        return ChatGLMConfig(hidden_size=shape.hidden, inner_hidden_size=shape.intermediate, num_layers=shape.layers,
                             num_attention_heads=shape.heads, vocab_size=shape.vocab)  # fmt: skip
    return Qwen3Config(hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
                       num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
                       vocab_size=shape.vocab, tie_word_embeddings=True)  # fmt: skip


@pytest.mark.parametrize("name", memory.SHAPES)
def test_parameters_are_those_of_the_network(name):
    shape = memory.SHAPES[name]
    lora = LoraConfig(
        r=8, alpha=16, dropout=0.0, target_modules=("query_key_value",) if shape.chatglm else "all-linear"
    )
    chatglm.register()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config(shape))
        model.tie_weights()
        assert sum(p.numel() for p in model.parameters()) == shape.parameters
        from peft import get_peft_model

        trainable = get_peft_model(model, lora.config(task_type="CAUSAL_LM")).get_nb_trainable_parameters()[0]
    assert trainable == memory.adapter(shape, lora)


@pytest.mark.parametrize("name", memory_check.SHAPES)
def test_computed_is_what_pytorch_allocates(name):
    found = memory_check.cases([name])
    assert len(found) == 10
    for _, case, computed, measured in found:
        assert abs(measured / computed - 1) < 0.15, (case, computed, measured)


def test_the_table_has_a_row_per_profile_and_a_column_per_stage():
    heading, *rows = memory.table().splitlines()
    assert heading.split() == ["GiB", "weights", *memory.STAGES]
    assert [row.split()[0] for row in rows[: len(memory.PROFILES)]] == list(memory.PROFILES)
    assert all(len(row.split()) == 2 + len(memory.STAGES) for row in rows[: len(memory.PROFILES)])


@pytest.mark.parametrize(("name", "card"), CARDS.items())
def test_every_stage_of_a_profile_fits_its_card(name, card):
    first = (imports.ROOT / "profiles" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert f"{card} GB" in first
    for stage, found in memory.parts(name).items():
        assert sum(found.values()) < 0.85 * card * memory.GIB, stage  # the rest is for what is left out


def test_chatglm_6b_fits_what_it_should():
    assert memory.chatglm_sft(recompute=True) < memory.chatglm_sft(recompute=False) < 22 * memory.GIB
    assert sum(memory.parts("chatglm-6b")["ppo"].values()) < 16 * memory.GIB


def test_the_documents_show_what_the_commands_print():
    assert memory.table() in (imports.ROOT / "docs/memory.md").read_text(encoding="utf-8")
    assert scale.table() in (imports.ROOT / "docs/gpu.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", scale.SIZES)
def test_sizes_are_what_their_names_say(name):
    size = scale.SIZES[name]
    count = (size.whole + size.shape.matrices) / 1e9
    assert abs(count / float(name.removesuffix("B")) - 1) < 0.1
    # sharded, the blocks' part shrinks and nothing else does; a token's layers come from its own machine
    assert scale.held(size, 8) - scale.held(size, 4) == -size.shape.matrices // 8 * scale.BYTES
    assert scale.token(size, 16, True) == scale.token(size, 8, True) > 5 * scale.token(size, 8, False)


def test_shell_lines_for_clusters_can_be_parsed():
    text = "".join((imports.ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("gpu", "experiments"))
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", text, flags=re.S)
    assert any("srun" in block for block in blocks) and any("sbatch" in block for block in blocks)
    for block in blocks:
        done = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True)
        assert done.returncode == 0, (block, done.stderr)
        for inner in re.findall(r"--wrap '(.*?)'\n", block):
            assert subprocess.run(["bash", "-n"], input=inner, text=True).returncode == 0
