"""ChatGLM-6B: parity with the reference fixture, and the equalities that training and generation rest on."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import chatglm_reference
import pytest
import tiny_models
import torch
from chatglm_fixture.tiny import build_tiny_chatglm
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DynamicCache,
    StaticCache,
)

from stages.models import base_model
from stages.models.chatglm import convert, pair, positions, prompt
from stages.models.chatglm.configuration import ChatGLMConfig
from stages.models.chatglm.modeling import ChatGLMForCausalLM, positions_of, rotary_angles, rotary_frequencies
from stages.runtime.errors import UserError

FIXTURE = Path(__file__).with_name("chatglm_fixture")
ICE_TEXT = Path(__file__).resolve().parents[1] / "models" / "chatglm-6b" / "ice_text.model"
PAD, MASK, GMASK, SOP, EOP = 3, 500, 501, 504, 505
TOLERANCE = {"atol": 1e-4, "rtol": 0.0}

# PEFT 0.21 asks a model for it by the old name, whatever the model is.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cases():
    return {
        name: t.long() if t.dtype == torch.int32 else t for name, t in load_file(FIXTURE / "cases.safetensors").items()
    }


@pytest.fixture(params=["sdpa", "eager"], scope="module")
def model(request):
    return load(attn_implementation=request.param)


@pytest.fixture(scope="module")
def sdpa():
    return load()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return build_tiny_chatglm(tmp_path_factory.mktemp("chatglm") / "tiny")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The real one, from a folder such as the hub has it."""
    if not ICE_TEXT.is_file():
        pytest.skip(f"{ICE_TEXT} is not there: THUDM/chatglm-6b has it")
    folder = tmp_path_factory.mktemp("real")
    (folder / "ice_text.model").write_bytes(ICE_TEXT.read_bytes())
    remote = {name: f"modeling_chatglm.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM")}
    config = json.loads((FIXTURE / "model" / "config.json").read_text()) | {"auto_map": remote, "quantization_bit": 0}
    (folder / "config.json").write_text(json.dumps(config))
    hub = {
        "name_or_path": "THUDM/chatglm-6b",
        "tokenizer_class": "ChatGLMTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
        "end_token": "</s>",
        "num_image_tokens": 0,
        "do_lower_case": False,
        "remove_space": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(hub))
    return AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)


@pytest.fixture(scope="module")
def texts():
    return json.loads((FIXTURE / "tokenization.json").read_text(encoding="utf-8"))


def load(folder=FIXTURE / "model", **arguments):
    return AutoModelForCausalLM.from_pretrained(folder, **arguments).eval()


def mask_of(ids):
    return (ids != PAD).long()


def close(found, expected):
    torch.testing.assert_close(found.float(), expected.float(), **TOLERANCE)


# --- parity with the fixture ---


@pytest.mark.parametrize(
    ("case", "padded"),
    [
        ("single_prompt", False),
        ("batch_prompt", True),
        ("batch_prompt_internal", False),
        ("mask_token", False),
        ("both_mask_tokens", False),
        ("single_sft", False),
        ("batch_sft", True),
    ],
)
def test_positions_masks_and_logits(model, cases, case, padded):
    ids = cases[f"{case}.input_ids"]
    mask = mask_of(ids) if padded else None
    real = positions.real_tokens(mask, *ids.shape, ids.device)
    position_ids = positions_of(model.config, ids, real)
    assert torch.equal(position_ids, cases[f"{case}.position_ids"])
    hidden = ~positions.visible(position_ids, real, 0, ids.shape[1])
    assert torch.equal(hidden, cases[f"{case}.attention_mask"].expand_as(hidden))

    labels = cases.get(f"{case}.labels")
    with torch.no_grad():
        found = model(ids, attention_mask=mask, labels=labels)
    close(found.logits, cases[f"{case}.logits"])  # rows of padding included
    if labels is not None:
        close(found.loss, cases[f"{case}.loss"][0])


def test_explicit_masks_and_positions(sdpa, cases):
    """The collator's mask, where padding sees the context, gives the same loss."""
    ids, mask = cases["batch_sft.input_ids"], ~cases["batch_sft.attention_mask_collator"]
    with torch.no_grad():
        found = sdpa(ids, mask, cases["batch_sft.position_ids"], labels=cases["batch_sft.labels"])
    close(found.loss, cases["batch_sft.loss"][0])
    close(found.logits[mask_of(ids).bool()], cases["batch_sft.logits"][mask_of(ids).bool()])


def test_hidden_states_attentions_and_cache(cases):
    model = load(attn_implementation="eager")
    with torch.no_grad():
        found = model(
            cases["single_prompt.input_ids"], use_cache=True, output_hidden_states=True, output_attentions=True
        )
    close(torch.stack(found.hidden_states), cases["single_prompt.hidden_states"].transpose(1, 2))
    close(torch.cat(found.attentions), cases["single_prompt.attentions"])
    for layer, cached in enumerate(found.past_key_values.layers):
        close(cached.keys.permute(2, 0, 1, 3), cases["single_prompt.present_key"][layer])
        close(cached.values.permute(2, 0, 1, 3), cases["single_prompt.present_value"][layer])


def test_rotary(cases):
    assert torch.equal(rotary_frequencies(16), cases["rotary.inv_freq_tiny"])
    assert torch.equal(rotary_frequencies(128), cases["rotary.inv_freq_real"])
    both = torch.arange(64).expand(1, 2, 64)
    for angles, name in zip(rotary_angles(both, 16, torch.bfloat16), ("cos", "sin"), strict=True):
        close(angles[0, 0, :, :8], cases[f"rotary.{name}_tiny"])
        close(angles[0, 0, :, 8:], cases[f"rotary.{name}_tiny"])


def test_half_precision_is_near_the_reference(cases):
    with torch.no_grad():
        found = load(dtype=torch.float16)(cases["single_prompt.input_ids"]).logits
    torch.testing.assert_close(found, cases["single_prompt.logits_fp16"], atol=0.25, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients(cases, checkpointing):
    model = load().train()
    if checkpointing:
        model.config.use_cache = False
        model.activation_checkpointing_enable()
    model(cases["single_sft.input_ids"], labels=cases["single_sft.labels"]).loss.backward()
    found = dict(model.named_parameters())
    expected = {name.removeprefix("single_sft.grad."): t for name, t in cases.items() if ".grad." in name}
    assert len(expected) == 6
    for name, gradient in expected.items():
        close(found[name].grad, gradient)


def test_trunk_and_head_are_what_ppo_scores_with(sdpa, cases):
    ids = cases["batch_sft.input_ids"]
    with torch.no_grad():
        trunk = sdpa.get_decoder()(input_ids=ids, attention_mask=mask_of(ids), use_cache=False)
        close(trunk.last_hidden_state, cases["batch_sft.last_hidden"].transpose(0, 1))
        close(sdpa.get_output_embeddings()(trunk.last_hidden_state), cases["batch_sft.logits"])
    assert trunk.past_key_values is None


def lora_model(cases, adapter="default"):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, lora_alpha=16, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    model = get_peft_model(load(), config, adapter_name=adapter)
    for index, layer in enumerate(model.get_decoder().layers):
        qkv = layer.attention.query_key_value
        qkv.lora_A[adapter].weight.data = cases[f"lora.layers.{index}.A"].clone()
        qkv.lora_B[adapter].weight.data = cases[f"lora.layers.{index}.B"].clone()
    return model.eval()


def test_lora(cases):
    ids = cases["batch_sft.input_ids"]
    model = lora_model(cases)
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask_of(ids), labels=cases["batch_sft.labels"])
    close(found.logits, cases["lora.logits"])
    close(found.loss, cases["lora.loss"][0])


@pytest.mark.parametrize("use", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
@pytest.mark.parametrize(
    ("case", "prompt", "pads_are_real"),
    [
        ("generate_single", "single_prompt", False),
        ("generate_batch", "batch_prompt", False),
        ("generate_batch_internal", "batch_prompt", True),
    ],
)
def test_greedy_generation(sdpa, cases, case, prompt, pads_are_real, use):
    ids = cases[f"{prompt}.input_ids"]
    found = sdpa.generate(
        ids,
        attention_mask=torch.ones_like(ids) if pads_are_real else mask_of(ids),
        max_new_tokens=16,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **use,
    )
    assert torch.equal(found.sequences, cases[f"{case}.sequences"])
    close(torch.stack(found.logits, dim=1), cases[f"{case}.scores"])


def test_assisted_generation(sdpa, cases):
    """Several tokens at a time go on from the cache, and rejected ones are taken back."""
    ids = cases["batch_prompt.input_ids"][2:]
    found = sdpa.generate(ids, max_new_tokens=16, do_sample=False, prompt_lookup_num_tokens=2)
    assert torch.equal(found, cases["generate_batch.sequences"][2:])


# --- other sizes, against the specification written out ---

SIZES = {
    "one layer, one head of 4": {"num_layers": 1, "num_attention_heads": 1, "hidden_size": 4},
    "three heads of 12, odd sizes": {
        "num_layers": 2, "num_attention_heads": 3, "hidden_size": 36, "inner_hidden_size": 50, "vocab_size": 101
    },
    "five layers": {"num_layers": 5, "num_attention_heads": 2, "hidden_size": 16},
    "ids 20000 higher, in small": {
        "num_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "vocab_size": 150, "bos_token_id": 140,
        "eos_token_id": 141, "gmask_token_id": 139, "mask_token_id": 138, "pad_token_id": 0
    },
}  # fmt: skip


@pytest.fixture(params=SIZES.values(), ids=SIZES.keys())
def sized(request):
    """A random model, and rows of five lengths: [gMASK], [MASK] amid the context, both, a border at 1, a long one."""
    ids = {"bos_token_id": 94, "eos_token_id": 95, "gmask_token_id": 91, "mask_token_id": 90, "vocab_size": 96}
    config = ChatGLMConfig(**{"initializer_range": 0.3, "max_sequence_length": 64} | ids | request.param)
    torch.manual_seed(7)
    model = ChatGLMForCausalLM(config).eval()
    for name, p in model.named_parameters():  # LayerNorms and biases too
        p.data = torch.randn_like(p) * 0.3 + ("layernorm.weight" in name)
    g, m, sop = config.gmask_token_id, config.mask_token_id, config.bos_token_id
    rows = [[7, 8, 9, g, sop, 20], [7, m, 8, 9, sop], [m, 7, g, sop, 30, 31, 32], [g, sop],
            [*range(5, 28), g, sop, 40, 41, sop, 43]]  # fmt: skip
    return model, rows


def written_out(model, row):
    config = model.config
    channels = chatglm_reference.positions(row, config.bos_token_id, config.gmask_token_id, config.mask_token_id)
    return channels, chatglm_reference.hidden_states(
        dict(model.state_dict()), config.num_attention_heads, row, channels
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_other_sizes_in_one_batch(sized, side):
    model, rows = sized
    pad = model.config.pad_token_id
    batch = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=pad, padding_side=side
    )
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones(len(row)).long() for row in rows], batch_first=True, padding_side=side
    )
    labels = batch.where((mask.cumsum(1) * mask > 1) & (torch.arange(batch.shape[1]) % 2 == 0), -100)
    with torch.no_grad():
        found = model(batch, attention_mask=mask, labels=labels, output_hidden_states=True)
        said, at = [], []
        for index, row in enumerate(rows):
            channels, states = written_out(model, row)
            real = mask[index].bool()
            assert positions_of(model.config, batch, mask.bool())[index][:, real].tolist() == channels
            assert len(found.hidden_states) == len(states) == model.config.num_layers + 1
            for ours, written in zip(found.hidden_states, states, strict=True):
                close(ours[index, real], written)
            logits = states[-1] @ model.lm_head.weight.T
            close(found.logits[index, real], logits)
            said.append(logits[:-1])
            at.append(labels[index, real][1:])
        close(found.loss, torch.nn.functional.cross_entropy(torch.cat(said), torch.cat(at)))


@pytest.mark.parametrize("how", [{}, {"use_cache": False}])
def test_other_sizes_generate_in_a_batch_what_each_says_alone(sized, how):
    model, rows = sized
    batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_side="left")
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones(len(row)).long() for row in rows], batch_first=True, padding_side="left"
    )
    found = model.generate(batch, attention_mask=mask, max_new_tokens=7, do_sample=False, **how)
    twice = model.generate(
        batch, attention_mask=mask, max_new_tokens=4, do_sample=True, top_k=1, num_return_sequences=2, **how
    )
    for index, row in enumerate(rows):
        said = []
        while len(said) < 7 and model.config.eos_token_id not in said:
            _, states = written_out(model, [*row, *said])
            said.append(int((states[-1][-1] @ model.lm_head.weight.T).argmax()))
        padding = [model.config.pad_token_id] * (7 - len(said))
        assert found[index, batch.shape[1] :].tolist() == said + padding
        for copy in twice[2 * index : 2 * index + 2, batch.shape[1] :].tolist():
            assert copy[: len(said)] == said[:4]


# --- equalities ---


def test_positions_by_hand():
    def found(*ids):
        row = torch.tensor([ids])
        return positions.prompt_positions(row, row != PAD, SOP, GMASK, MASK)[0].tolist()

    assert found(10, 11, 12, GMASK, SOP, 20, 21) == [[0, 1, 2, 3, 3, 3, 3], [0, 0, 0, 0, 1, 2, 3]]
    assert found(PAD, PAD, 10, MASK, 11, SOP, 20, PAD) == [[0, 0, 0, 1, 2, 1, 1, 0], [0, 0, 0, 0, 0, 1, 2, 0]]
    # a model may say <sop> or [gMASK] in an answer: the border stays where the prompt put it
    assert found(10, MASK, SOP, SOP, GMASK, 20) == [[0, 1, 1, 1, 1, 1], [0, 0, 1, 2, 3, 4]]


def test_one_pass_equals_incremental_generation(sdpa, cases):
    """What PPO rests on: the sampled answer, scored in one pass with left padding, has the logits it was drawn from."""
    ids = cases["batch_prompt.input_ids"]
    torch.manual_seed(0)
    drawn = sdpa.generate(
        ids,
        attention_mask=mask_of(ids),
        max_new_tokens=12,
        do_sample=True,
        top_k=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    new = drawn.sequences[:, ids.shape[1] :]
    ended = (new == EOP).cumsum(1) - (new == EOP).long() > 0  # after <eop>
    mask = torch.cat([mask_of(ids), (~ended).long()], dim=1)
    with torch.no_grad():
        hidden = sdpa.get_decoder()(drawn.sequences, attention_mask=mask).last_hidden_state
        logits = sdpa.get_output_embeddings()(hidden[:, ids.shape[1] - 1 : -1])
    close(logits[~ended], torch.stack(drawn.logits, dim=1)[~ended])


@pytest.mark.parametrize("kind", ["own", "dynamic", "static"])
def test_stepwise_decoding_needs_no_positions(sdpa, cases, kind):
    ids, expected = cases["batch_prompt.input_ids"], cases["generate_batch.scores"]
    answers = cases["generate_batch.sequences"][:, ids.shape[1] :]
    cache = {"own": None, "dynamic": DynamicCache(), "static": StaticCache(config=sdpa.config, max_cache_len=30)}[kind]
    mask, tokens, found = mask_of(ids), ids, []
    with torch.no_grad():
        for step in range(answers.shape[1]):
            output = sdpa(tokens, attention_mask=mask, past_key_values=cache, use_cache=True)
            cache, tokens = output.past_key_values, answers[:, step : step + 1]
            found.append(output.logits[:, -1])
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
    close(torch.stack(found, dim=1), expected)


def test_padding_side_changes_nothing(sdpa, cases):
    left = cases["batch_sft.input_ids"]
    real = left != PAD
    right = torch.full_like(left, PAD)
    right_real = real.flip(1)
    for row in range(len(left)):
        right[row, right_real[row]] = left[row, real[row]]
    with torch.no_grad():
        found = sdpa(right, attention_mask=right_real.long()).logits
        alone = sdpa(left[1, real[1]][None]).logits[0]
    close(found[right_real], cases["batch_sft.logits"][real])
    close(found[1, right_real[1]], alone)


def test_padding_stays_finite_under_autocast(sdpa, cases):
    ids = cases["batch_sft.input_ids"]
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype), torch.no_grad():
            found = sdpa(ids, attention_mask=mask_of(ids), labels=cases["batch_sft.labels"])
        assert found.logits.isfinite().all()
        assert found.loss.item() == pytest.approx(cases["batch_sft.loss"].item(), abs=0.02)


def test_beams_of_a_batch_equal_beams_of_each(sdpa, cases):
    ids = cases["batch_prompt.input_ids"][:2]  # two rows: as many as position channels
    arguments = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    both = sdpa.generate(ids, attention_mask=mask_of(ids), **arguments)
    for row in range(2):
        alone = ids[row, ids[row] != PAD][None]
        assert torch.equal(both[row, ids.shape[1] :], sdpa.generate(alone, **arguments)[0, alone.shape[1] :])


def test_generation_goes_on_from_a_cache(sdpa, cases):
    ids = cases["single_prompt.input_ids"]
    first = sdpa.generate(ids, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    rest = sdpa.generate(first.sequences, past_key_values=first.past_key_values, max_new_tokens=13, do_sample=False)
    assert torch.equal(rest, cases["generate_single.sequences"])


def test_logits_processors_are_honoured(sdpa, cases):
    ids = cases["batch_prompt.input_ids"]

    def only_seven(_, scores):
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([7]), 0.0)

    found = sdpa.generate(
        ids, attention_mask=mask_of(ids), max_new_tokens=3, do_sample=True, logits_processor=[only_seven]
    )
    assert (found[:, ids.shape[1] :] == 7).all()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_under_lora_trains_lora_alone(cases, reentrant):
    ids, labels = cases["batch_sft.input_ids"], cases["batch_sft.labels"]
    gradients = []
    for checkpointing in (False, True):
        model = lora_model(cases).train()
        model.config.use_cache = False
        if checkpointing:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        model(input_ids=ids, attention_mask=mask_of(ids), labels=labels).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(gradients[0]) == 6
    assert all(".lora_" in name for name in gradients[0])
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        close(gradients[1][name], gradient)


def test_two_adapters_add_up_and_generate(cases):
    from peft import LoraConfig

    ids = cases["batch_prompt.input_ids"]
    model = lora_model(cases, "sft")
    model.add_adapter("ppo", LoraConfig(r=2, target_modules=["query_key_value"], task_type="CAUSAL_LM"))
    model.base_model.set_adapter(["sft", "ppo"])
    model.eval()
    with torch.no_grad():
        alone = lora_model(cases)(ids, attention_mask=mask_of(ids)).logits
        assert torch.equal(model(ids, attention_mask=mask_of(ids)).logits, alone)  # a new adapter is the identity
        with model.disable_adapter():
            close(model(ids, attention_mask=mask_of(ids)).logits, cases["batch_prompt.logits"])
    generated = model.generate(input_ids=ids, attention_mask=mask_of(ids), max_new_tokens=4, do_sample=False)
    merged = lora_model(cases).merge_and_unload()
    assert torch.equal(generated, merged.generate(ids, attention_mask=mask_of(ids), max_new_tokens=4, do_sample=False))


def test_trl_trains_a_reward_model(tiny, tmp_path):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import RewardConfig, RewardTrainer

    asked = [{"role": "user", "content": "我发烧了"}]
    answers = [[{"role": "assistant", "content": text}] for text in ("多喝水，注意休息。", "不")]
    rows = [{"prompt": asked, "chosen": answers[0], "rejected": answers[1]}] * 4
    trainer = RewardTrainer(
        model=AutoModelForSequenceClassification.from_pretrained(tiny, num_labels=1),
        args=RewardConfig(
            output_dir=str(tmp_path),
            max_steps=12,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            gradient_checkpointing=None,
            report_to=[],
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny),
        peft_config=LoraConfig(r=4, target_modules=["query_key_value"], modules_to_save=["score"], task_type="SEQ_CLS"),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_reward_is_the_score_at_the_last_real_token(cases, side):
    reward = AutoModelForSequenceClassification.from_pretrained(FIXTURE / "model", num_labels=1).eval()
    rows = [ids[ids != PAD] for ids in cases["batch_sft.input_ids"]]
    batch = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD, padding_side=side)
    with torch.no_grad():
        found = reward(batch, attention_mask=mask_of(batch)).logits
        expected = reward.score(cases["batch_sft.last_hidden"][-1])
    assert found.shape == (3, 1)
    close(found, expected)


# --- errors ---


@pytest.mark.parametrize(
    "imports",
    [
        "import stages.core; from transformers import pipeline",
        "from transformers import AutoModelForCausalLM; import stages.core",
        "import stages.core; from transformers.generation import GenerationMixin",
    ],
)
def test_importing_the_package_lets_transformers_load_it(imports, tiny):
    """In a stranger's script, in whatever order; nothing heavy is imported before transformers is."""
    light = "import sys, stages.models.chatglm; assert not {'torch', 'transformers'} & sys.modules.keys(); "
    use = (
        "import transformers; c, m, t = (getattr(transformers, name).from_pretrained(sys.argv[1]) "
        "for name in ('AutoConfig', 'AutoModelForCausalLM', 'AutoTokenizer')); "
        "print(*(type(x).__module__ for x in (c, m, t)))"
    )
    code = f"{light if 'transformers' not in imports.split(';')[0] else 'import sys; '}{imports}; {use}"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny)],
        cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    expected = [f"stages.models.chatglm.{name}" for name in ("configuration", "modeling", "tokenization")]
    assert done.stdout.split() == expected, done.stderr


def test_prompts_without_their_specials_are_refused(sdpa):
    with pytest.raises(ValueError, match=r"row 1 of input_ids has no <sop> \(504\)"):
        sdpa(torch.tensor([[7, GMASK, SOP], [7, GMASK, 8]]))
    with pytest.raises(ValueError, match=r"row 0 of input_ids has no \[gMASK\]"):
        sdpa(torch.tensor([[7, SOP, GMASK]]))
    with pytest.raises(ValueError, match="two channels"):
        sdpa(torch.tensor([[7, GMASK, SOP]]), position_ids=torch.arange(3)[None])
    with pytest.raises(ValueError, match="in one piece"):
        sdpa.generate(torch.tensor([[7, 8, 9, GMASK, SOP]]), max_new_tokens=2, prefill_chunk_size=2)


def test_a_cache_changed_behind_the_model_is_refused(sdpa, cases):
    ids = cases["batch_prompt.input_ids"]
    cache = sdpa(ids, attention_mask=mask_of(ids), use_cache=True).past_key_values
    mask = torch.cat([mask_of(ids), torch.ones(3, 1, dtype=torch.long)], dim=1)
    with pytest.raises(ValueError, match="the cached ones included"):
        sdpa(ids[:, -1:], attention_mask=mask_of(ids), past_key_values=cache)
    cache.batch_select_indices(torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="does not know where its rows ended"):
        sdpa(ids[[0, 2], -1:], attention_mask=mask[[0, 2]], past_key_values=cache)


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


# --- disk ---


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


def pickled(folder, tensors):
    """A folder such as the original: two pickled shards with their index."""
    folder.mkdir()
    (folder / "config.json").write_text((FIXTURE / "model" / "config.json").read_text())
    (folder / "ice_text.model").write_bytes(b"not read here")
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in shards.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def test_conversion_of_the_pickled_checkpoint(tmp_path, cases):
    tensors = load_file(FIXTURE / "model" / "model.safetensors")
    tensors["transformer.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(4)
    source = pickled(tmp_path / "original", tensors)
    with pytest.raises(OSError, match=r"pickled .*python -m stages\.core\.chatglm\.convert"):
        load(source)
    convert.convert(source, tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").glob("model*")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    with torch.no_grad():
        close(load(tmp_path / "new")(cases["single_prompt.input_ids"]).logits, cases["single_prompt.logits"])
    with pytest.raises(UserError, match="exists already"):
        convert.convert(source, tmp_path / "new")
    (source / "config.json").write_text('{"model_type": "chatglm", "multi_query_attention": true}')
    with pytest.raises(UserError, match="belongs to ChatGLM2"):
        convert.convert(source, tmp_path / "newer")


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """A real refusal to write, in the middle of the second shard."""
    tensors = load_file(FIXTURE / "model" / "model.safetensors")
    source = pickled(tmp_path / "original", tensors)
    (tmp_path / "new").mkdir()
    room = min(file.stat().st_size for file in source.glob("*.bin")) - 1000
    code = (
        "import resource, sys; from pathlib import Path; from stages.models.chatglm import convert; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); "
        "convert.main(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(tmp_path / "new" / "model")],
        cwd=Path(__file__).resolve().parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/new/model: can't be written (") and done.stderr.count("\n") == 1
    assert not list((tmp_path / "new").iterdir())


def test_the_pipeline_names_the_conversion(tmp_path, tiny):
    """A pickled folder as model.name is refused with the command to run, which is enough."""
    source = pickled(tmp_path / "original", load_file(tiny / "model.safetensors"))
    for name in ("config.json", "ice_text.model", "tokenizer_config.json"):
        (source / name).write_bytes((tiny / name).read_bytes())
    with pytest.raises(UserError, match=r"no \*\.safetensors, and") as refusal:
        base_model.write_pointer(tmp_path, tiny_models.MODEL.replace(name=str(source)))
    command = str(refusal.value).split("`")[1].replace("NEW_FOLDER", str(tmp_path / "new")).split()
    assert command[:4] == ["python", "-m", "stages.models.chatglm.convert", str(source)]
    convert.main(Path(command[3]), Path(command[4]))
    base_model.write_pointer(tmp_path, tiny_models.MODEL.replace(name=str(tmp_path / "new")))
    base = base_model.read(tmp_path)
    assert base.tokenizer().encode("我发烧了") == AutoTokenizer.from_pretrained(tiny).encode("我发烧了")
    ids = torch.tensor([base.tokenizer().encode("我发烧了")])
    with torch.no_grad():
        assert torch.equal(base.causal_lm()(ids).logits, load(tiny)(ids).logits)


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


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_conversion_reads_tensors_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = load_file(FIXTURE / "model" / "model.safetensors")
    source = pickled(tmp_path / "original", tensors)
    shard = source / "pytorch_model-00002-of-00002.bin"
    for bad, message in [
        (lambda: torch.save({"x": RunsCode()}, shard), "not a file of plain tensors"),
        (lambda: shard.write_bytes(pickle.dumps(RunsCode(), protocol=2)), "not a file of plain tensors"),
        (lambda: torch.save({"x": torch.ones(1)}, shard), "`x` is .* config.json asks for none"),
        (lambda: torch.save({}, shard), "missing"),
        (shard.unlink, "has no pytorch_model-00002"),
    ]:
        bad()
        with pytest.raises(UserError, match=message):
            convert.convert(source, tmp_path / "new")
        assert not (tmp_path / "new").exists()
        assert not (tmp_path / "ran").exists()


# --- tokenizer ---

CONTROL = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<pad>", "<unk>", "<s>", "</s>", "<ENC>", "<dBLOCK>")


def test_ids_are_the_official_ones(tokenizer, texts):
    assert len(texts["cases"]) == 47
    differing = 0
    for case in texts["cases"]:
        ids = tokenizer.encode(case["text"], add_special_tokens=False)
        if {0, 3, 130000, 130004, 130005} & set(case["ids"]):  # the official hole, see the next test
            differing += 1
            assert tokenizer.decode(ids) == case["text"]
        else:
            assert ids == case["ids"]
            assert tokenizer.tokenize(case["text"]) == case["tokens"]
            assert tokenizer(case["text"])["input_ids"] == case["ids_special"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        assert tokenizer.decode(case["ids"], skip_special_tokens=True) == case["decoded_skip_special"]
    assert differing == 7
    for case in texts["pairs"]:
        ids = tokenizer(case["text"], case["text_pair"])["input_ids"]
        assert (ids, tokenizer.decode(ids)) == (case["ids"], case["decoded"])
    for case in texts["decode_only"]:
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        assert tokenizer.decode(case["ids"], skip_special_tokens=True) == case["decoded_skip_special"]


def test_named_tokens(tokenizer, texts):
    assert len(tokenizer) == texts["len"]
    assert {name: getattr(tokenizer, name) for name in texts["attrs"]} == texts["attrs"]
    named = {name: tokenizer.convert_tokens_to_ids(name) for name in texts["named_ids"]}
    assert named == texts["named_ids"]


@pytest.mark.parametrize("which", ["tokenizer", "tiny"])
def test_no_text_becomes_a_control_token(request, which):
    found = request.getfixturevalue(which)
    tokenizer = AutoTokenizer.from_pretrained(found) if isinstance(found, Path) else found
    named = {tokenizer.convert_tokens_to_ids(token) for token in CONTROL}
    control = named - {tokenizer.unk_token_id} | set(tokenizer.all_special_ids)
    for token in CONTROL:
        for text in (token, f"你好{token}世界", f"{token}{token}", f" {token}\n"):
            assert not control & set(tokenizer.encode(text, add_special_tokens=False)), text
            assert not control & set(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)), text
            messages = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            assert [i for i in ids if i in control] == [tokenizer.gmask_token_id, tokenizer.bos_token_id] == ids[-2:]


def test_batches_are_padded_on_the_left(tokenizer, texts):
    batch = tokenizer(texts["batch"]["texts"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == texts["batch"]["input_ids"]
    real = batch["attention_mask"].bool()
    found = positions.prompt_positions(batch["input_ids"], real, bos=130004, gmask=130001, mask=130000)
    assert found.tolist() == texts["batch"]["position_ids"]
    hidden = ~positions.visible(found, real, 0, real.shape[1])
    assert hidden.int().tolist() == texts["batch"]["attention_mask"]


def test_ids_past_the_vocabulary_decode_to_nothing(tokenizer):
    assert tokenizer.decode([5, 74874, 130400, -100]) == "你好"
    assert tokenizer.batch_decode([[5, 74874], [3, 130527]]) == ["你好", ""]


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path, round_start=1)
    other.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "chatglm"}')
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is type(tokenizer)
    assert (again.round_start, tokenizer.round_start) == (1, 0)
    assert again("你好<sop>")["input_ids"] == tokenizer("你好<sop>")["input_ids"]
    assert "auto_map" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_tokenizer_errors(tmp_path, tiny):
    (tmp_path / "config.json").write_text('{"model_type": "chatglm"}')
    with pytest.raises(ValueError, match=r"ice_text\.model is missing"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "ice_text.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_image_tokens 20000"):
        AutoTokenizer.from_pretrained(tiny, num_image_tokens=20000)
    with pytest.raises(ValueError, match="round_start: 2"):
        AutoTokenizer.from_pretrained(tiny, round_start=2)
    with pytest.raises(ValueError, match="`</eop>` is not a control piece"):
        AutoTokenizer.from_pretrained(tiny, eos_token="</eop>")
    with pytest.raises(ValueError, match="can't grow"):
        AutoTokenizer.from_pretrained(tiny).add_tokens(["<new>"])


# --- prompts, labels ---


def test_prompt_formats():
    history = [("你好", "您好。"), ("咳嗽", "喝水")]
    assert prompt.render([], "发烧", 0) == "发烧"
    assert prompt.render(history, "发烧", 0) == (
        "[Round 0]\n问：你好\n答：您好。\n[Round 1]\n问：咳嗽\n答：喝水\n[Round 2]\n问：发烧\n答："
    )
    assert prompt.render([], "发烧", 1) == "[Round 1]\n\n问：发烧\n\n答："
    assert prompt.render(history[:1], "发烧", 1) == (
        "[Round 1]\n\n问：你好\n\n答：您好。\n\n[Round 2]\n\n问：发烧\n\n答："
    )


def test_chat_template_gives_the_official_ids(tokenizer, texts):
    official = next(case for case in texts["cases"] if case["text"].startswith("[Round 0]"))
    first = "你好👋！我是人工智能助手 ChatGLM-6B，很高兴见到你，欢迎问我任何问题。"
    messages = [
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "晚上睡不着应该怎么办"},
    ]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == official["text"]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert ids == official["ids_special"]


def test_chat_template_with_an_answer(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    asked = [{"role": "user", "content": "我发烧了"}]
    answered = [*asked, {"role": "assistant", "content": "多喝水"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    answer = tokenizer.encode("多喝水", add_special_tokens=False)
    whole = tokenizer.apply_chat_template(answered, return_assistant_tokens_mask=True)
    assert whole["input_ids"] == [*ids, *answer, tokenizer.eos_token_id]
    assert whole["assistant_masks"] == [0] * len(ids) + [1] * (len(answer) + 1)
    open_ended = tokenizer.apply_chat_template(answered, continue_final_message=True, return_dict=False)
    assert open_ended == [*ids, *answer]
    batch = tokenizer.apply_chat_template(
        [asked, [*answered, *asked]], add_generation_prompt=True, padding=True, return_tensors="pt"
    )
    assert batch["input_ids"][0, -len(ids) :].tolist() == ids
    assert batch["attention_mask"].sum(1).tolist()[0] == len(ids)
    masks = tokenizer.apply_chat_template(
        [answered, [*asked, *answered[1:], *answered]], padding=True, return_assistant_tokens_mask=True
    )
    assert masks["assistant_masks"][0][-len(answer) - 1 :] == [1] * (len(answer) + 1)
    assert [sum(mask) for mask in masks["assistant_masks"]] == [len(answer) + 1] * 2
    assert len({len(row) for row in [*masks["assistant_masks"], *masks["input_ids"]]}) == 1
    cut = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_dict=False, truncation=True, max_length=4
    )
    assert cut == [*ids[:2], *ids[-2:]]


@pytest.mark.parametrize(
    ("roles", "arguments", "message"),
    [
        (["system", "user"], {"add_generation_prompt": True}, "message 0 has role `system`"),
        (["user", "user"], {"add_generation_prompt": True}, "message 1 has role `user`"),
        (["user"], {}, "pass add_generation_prompt"),
        (["user", "assistant"], {"add_generation_prompt": True}, "leave add_generation_prompt out"),
        (["user"], {"add_generation_prompt": True, "tools": [1]}, "tools"),
        ([], {}, "at least one message"),
    ],
)
def test_chat_template_refusals(tiny, roles, arguments, message):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    with pytest.raises(ValueError, match=message):
        tokenizer.apply_chat_template([{"role": role, "content": "好"} for role in roles], **arguments)


def test_labels_and_truncation(tokenizer, texts):
    case = texts["pairs"][1]
    whole = pair.training_pair(tokenizer, case["text"], case["text_pair"], 64, 64)
    border = case["ids"].index(130004) + 1
    assert whole["input_ids"] == case["ids"]
    assert whole["labels"] == [-100] * border + case["ids"][border:]
    cut = pair.training_pair(tokenizer, case["text"], case["text_pair"], 6, 4)
    assert cut["input_ids"] == [*case["ids"][:4], 130001, 130004, *case["ids"][border : border + 3], 130005]
    assert cut["labels"] == [-100] * 6 + cut["input_ids"][6:]


# --- the tiny model as a pipeline sees it ---


def test_tiny_model_learns_an_answer_and_says_it(tiny):
    """Left-padded prompts, LoRA on query_key_value with everything else frozen, greedy decoding to <eop>."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = load(tiny)
    assert model.config.vocab_size > len(tokenizer)
    lora = LoraConfig(r=8, lora_alpha=32, target_modules=["query_key_value"], task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    rows = [("我发烧了", "多喝水"), ("睡不着应该怎么办？", "不要看手机")]
    features = [SimpleNamespace(**pair.training_pair(tokenizer, *row, 64, 16)) for row in rows]
    length = max(len(f.input_ids) for f in features)
    ids = torch.tensor([[PAD] * (length - len(f.input_ids)) + f.input_ids for f in features])
    labels = torch.tensor([[-100] * (length - len(f.labels)) + f.labels for f in features])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    for _ in range(400):
        loss = model(input_ids=ids, attention_mask=mask_of(ids), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    prompts = tokenizer([question for question, _ in rows], padding=True, return_tensors="pt")
    answers = model.eval().generate(**prompts, max_new_tokens=16, do_sample=False)[:, prompts["input_ids"].shape[1] :]
    assert [tokenizer.decode(answer, skip_special_tokens=True) for answer in answers] == [answer for _, answer in rows]
    assert (answers == tokenizer.eos_token_id).any(dim=1).all()
