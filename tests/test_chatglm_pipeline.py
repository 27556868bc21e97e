"""A tiny random ChatGLM through every stage, and the equalities that its stack rests on."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import chatglm_pair
import imports
import pytest
import torch
import yaml
from chatglm_fixture.tiny import build_tiny_chatglm
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stages.generation import generate
from stages.generation.decoding import PLAIN
from stages.metrics import text_metrics
from stages.models import base_model, forward, reward, stack
from stages.models.chatglm import prompt
from stages.rl import logprobs
from stages.runtime import atomic
from stages.serving import streaming
from stages.text import encoding, records

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
QUESTIONS = ["我发烧了", "晚上睡不着应该怎么办？", "请问需要做核酸检测吗，我应该怎么办？", "干咳三天了"]
ANSWER = "注意休息。"
HISTORY = [["您好", "您好。"]]
GREEDY = PLAIN.replace(do_sample=False)
LORA = {"r": 4, "alpha": 32, "dropout": 0.0, "target_modules": ["query_key_value"]}


class Run(NamedTuple):
    folder: Path
    base: Path
    sft: Path
    ppo: Path
    rm: Path
    output: str


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    to = tmp_path_factory.mktemp("pipeline")
    plain = [[f"病人：{q}", f"医生：{ANSWER}"] for q in QUESTIONS]
    dialogues = plain + [["病人：" + HISTORY[0][0], "医生：" + HISTORY[0][1], *turns] for turns in plain]
    preferences = [
        {"history": history, "instruction": question, "input": "", "output": [ANSWER, "不"]}
        for history in ([], HISTORY)
        for question in QUESTIONS
    ]
    for name, rows in (
        ("train_data", dialogues * 4),
        ("validate_data", dialogues[:2]),
        ("test_data", dialogues),
        ("preferences", preferences * 2),
    ):
        atomic.write_json(to / "mine" / f"{name}.json", rows)
    (to / "params.yaml").write_text(yaml.safe_dump(parameters(to)), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(imports.ROOT / "tests" / "chatglm_pipeline.py")],
        env=os.environ | {"PYTHONPATH": str(imports.ROOT), "COVID_DOCTOR_WORK": str(to / "work"), "HF_HUB_OFFLINE": "1",
                          "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        cwd=to, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    base, sft, ppo, rm = (to / "models" / name for name in ("base", "sft", "ppo", "rm"))
    return Run(to, base, sft, ppo, rm, done.stdout)


def parameters(to: Path) -> dict:
    params = yaml.safe_load((imports.ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["model"]["name"] = str(build_tiny_chatglm(to / "chatglm"))
    params["data"] |= {
        "dialogues": "mine",
        "preferences": "mine/preferences.json",
        "preferences_validate_ratio": 0.5,
    }
    params["sft"] |= {
        "num_train_epochs": 60,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "eval_steps": 80,
        "max_grad_norm": 10.0,
        "max_source_length": 64,
        "max_target_length": 16,
        "lora": LORA | {"r": 8},
    }
    params["rm"] |= {
        "num_train_epochs": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "eval_steps": 5,
        "max_source_length": 64,
        "max_target_length": 16,
        "lora": LORA,
    }
    params["ppo"] |= {
        "total_episodes": 32,
        "batch_size": 8,
        "tokens_per_batch": 100,
        "save_steps": 2,
        "local_rollout_forward_batch_size": 4,
        "max_source_length": 64,
        "min_response_length": 6,
        "max_response_length": 12,
        "learning_rate": 1e-3,
        "lora": LORA,
    }
    params["predict"] |= {
        "max_source_length": 64,
        "max_new_tokens": 16,
        "batch_size": 3,
        "do_sample": False,
    }
    params["evaluate"] |= {"max_source_length": 64, "max_target_length": 16, "tokens_per_batch": 100}
    params["report"]["bootstrap_samples"] = 100
    return params


def test_every_stage(run):
    pointer = base_model.read(run.base)
    assert pointer.identity.startswith("local:") and sorted(p.name for p in run.base.iterdir()) == ["base.json"]
    for folder in (run.sft, run.rm, run.ppo):
        weights = load_file(folder / stack.WEIGHTS)
        assert {name.split(".")[-3] for name in weights} == {"query_key_value"}
        assert len(weights) == 4  # A and B of two layers
        assert all(tensor.abs().sum() > 0 for tensor in weights.values()), "an adapter did not learn"
    reports = run.folder / "reports"
    assert json.loads((reports / "rm" / "metrics.json").read_text())["eval_accuracy"] == 1.0
    headline = json.loads((reports / "metrics.json").read_text())
    assert headline["sft"]["rouge-l"] > 90 > 20 > headline["base"]["rouge-l"]
    assert headline["sft"]["eos_rate"] > 90 > headline["base"]["eos_rate"]
    assert (reports / "index.html").stat().st_size > 1e5


# Full-width letters, digits and signs, which the tokenizer makes half-width.
REFERENCE = "体温３８℃，注意休息；Ｂ超：可以吗？（再看）！\n没事"


def scores(predict: str, label: str) -> list[float]:
    """ROUGE-1, -2 and -L, and BLEU-4."""
    return [*text_metrics.rouge(predict, label).values(), text_metrics.bleu_4(predict, label)]


def test_a_perfect_answer_scores_100(run):
    tokenizer = base_model.read(run.base).tokenizer()
    ids = encoding.encode_answer(tokenizer, REFERENCE, 500).ids
    perfect = tokenizer.decode(ids, skip_special_tokens=True).strip()  # as `predict` writes it
    assert perfect != REFERENCE and min(scores(perfect, REFERENCE)) < 80
    both = [encoding.normalize(tokenizer, text) for text in (perfect, REFERENCE)]
    assert both[0] == both[1] == perfect
    assert scores(*both) == pytest.approx([100] * 4)


def test_a_shown_answer_has_full_width_punctuation(run):
    """As the official `chat()` shows it: beside Chinese characters only."""
    tokenizer = base_model.read(run.base).tokenizer()
    text = " 注意休息,多喝水!39.5:好; ok, fine?对 [[训练时间]]以前: a,b\n"
    shown = "注意休息，多喝水！39.5：好； ok, fine？对 2023年以前： a,b"
    assert encoding.displayed(tokenizer, text) == shown
    ids = tokenizer.encode(text, add_special_tokens=False)
    whole = encoding.displayed(tokenizer, tokenizer.decode(ids))
    pieces: list[str] = []
    streamer = streaming.AnswerStreamer(tokenizer, pieces.append)
    for token in [[0], *([token] for token in ids)]:
        streamer.put(torch.tensor(token))
    streamer.end()
    assert "".join(pieces) == whole and len(pieces) > 5


def views_of(run: Run, **change) -> tuple:
    """What PPO works with: tokenizer, the module with every adapter on it, and prompts of four lengths."""
    origin = base_model.read(run.base)
    origin = replace(origin, model=origin.model.replace(**change))
    tokenizer = origin.tokenizer()
    model = stack.load(origin.causal_lm(), [run.sft, run.rm, run.ppo])
    stack.activate(model, ["sft", "ppo"], trainable="ppo")
    rounds = [[], HISTORY, HISTORY * 2, []]
    prompts = [
        encoding.encode_prompt(tokenizer, history, question, 99, "ppo").ids
        for history, question in zip(rounds, QUESTIONS, strict=True)
    ]
    return tokenizer, model, prompts


RESPONSES = [[40, 41, 42], [43], [44, 45, 46, 47, 48], [50, 51]]


def test_ppo_gives_padded_rows_the_positions_of_each_alone(run, monkeypatch):
    from stages.models.chatglm import modeling

    tokenizer, model, prompts = views_of(run)
    batch = forward.to_batch(prompts, RESPONSES, tokenizer.pad_token_id, "cpu")
    seen = {}
    for name in ("rotary_angles", "visible"):

        def spy(*arguments, name=name, inner=getattr(modeling, name)):
            seen[name] = inner(*arguments) if name == "visible" else arguments[0]
            return inner(*arguments)

        monkeypatch.setattr(modeling, name, spy)
    with torch.no_grad():
        forward.hidden_states(model, batch)
        positions, mask = seen["rotary_angles"], seen["visible"]
        for row, (prompt_ids, response) in enumerate(zip(prompts, RESPONSES, strict=True)):
            real = slice(len(prompt_ids) + len(response))
            border, length = len(prompt_ids) - 1, len(prompt_ids) + len(response)  # <sop> is the prompt's last
            assert positions[row, 0, real].tolist() == [*range(border), *[border - 1] * (length - border)]
            assert positions[row, 1, real].tolist() == [*[0] * border, *range(1, length - border + 1)]
            context = torch.arange(length) < border
            causal = torch.ones(length, length, dtype=torch.bool).tril()
            assert torch.equal(mask[row, 0, real, real], causal | context)
            assert not mask[row, 0, real, real.stop :].any()


def test_ppo_reads_padded_rows_as_each_alone(run):
    """Log-probabilities, values and rewards."""
    tokenizer, model, prompts = views_of(run)
    value_head = torch.nn.Linear(32, 1)
    value_head.load_state_dict(load_file(run.ppo / "value_head.safetensors"))
    head = reward.load_head(run.rm, "cpu")
    batch = forward.to_batch(prompts, RESPONSES, tokenizer.pad_token_id, "cpu")
    logprobs.check_plain_head(model, batch)
    said = logprobs.response_log_probs(model, batch, 0.7, 4, value_head)
    with stack.active(model, ["reward"]), torch.no_grad():
        scores = reward.score(model, head, prompts, RESPONSES, tokenizer.pad_token_id, 100)
    for row, (prompt_ids, response) in enumerate(zip(prompts, RESPONSES, strict=True)):
        ids = torch.tensor([[*prompt_ids, *response]])
        with torch.no_grad():
            alone = model(input_ids=ids, output_hidden_states=True)  # no mask, no positions
            log_probs = (alone.logits[0, len(prompt_ids) - 1 : -1] / 0.7).log_softmax(-1)
            log_probs = log_probs[range(len(response)), response]
            values = value_head(alone.hidden_states[-1][0, len(prompt_ids) - 1 : -1]).squeeze(-1)
            with stack.active(model, ["reward"]):
                last = model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1]
            expected = head(last)
        close = {"atol": 1e-5, "rtol": 1e-5}
        torch.testing.assert_close(said.log_probs[row, : len(response)], log_probs, **close)
        torch.testing.assert_close(said.values[row, : len(response)], values, **close)
        assert scores[row] == pytest.approx(expected.item(), abs=1e-5)
        assert not said.log_probs[row, len(response) :].any()


def test_ppo_scores_as_the_classifier_that_was_trained(run):
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    tokenizer, model, prompts = views_of(run)
    head = reward.load_head(run.rm, "cpu")
    with stack.active(model, ["reward"]):
        scores = reward.score(model, head, prompts, RESPONSES, tokenizer.pad_token_id, 100)
    classifier = base_model.read(run.base).reward_model()
    lora = LoraConfig(r=4, lora_alpha=32, target_modules=["query_key_value"], task_type="SEQ_CLS")
    classifier = get_peft_model(classifier, lora)
    head = {"base_model.model.score.weight": load_file(run.rm / reward.HEAD)["weight"]}
    assert not set_peft_model_state_dict(classifier, load_file(run.rm / stack.WEIGHTS) | head).unexpected_keys
    with torch.no_grad():
        found = [
            classifier(input_ids=torch.tensor([[*p, *r]])).logits.item()
            for p, r in zip(prompts, RESPONSES, strict=True)
        ]
    assert found == pytest.approx(scores, abs=1e-5)


# four roundings in half precision; a CPU with units of its own for it (AMX, AVX512-FP16) needs 2.4 of them
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 4 * 2**-7), ("float16", 4 * 2**-10)])
def test_checkpointing_and_half_precision(run, dtype, tolerance):
    """The gradients with recomputed activations are those without, in each precision; and near those of float32."""
    tokenizer, exact, prompts = views_of(run)
    batch = forward.to_batch(prompts, RESPONSES, tokenizer.pad_token_id, "cpu")
    expected = logprobs.response_log_probs(exact, batch, 1.0, 8).log_probs
    found = []
    for checkpointing in (False, True):
        _, model, _ = views_of(run, dtype=dtype)
        model.train()
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
            model.enable_input_require_grads()
        said = logprobs.response_log_probs(model, batch, 1.0, 8)
        said.log_probs.sum().backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
        assert model.get_decoder().layers[0].attention.query_key_value.base_layer.weight.dtype == getattr(torch, dtype)
    assert (said.log_probs - expected).abs().max() < tolerance * expected.abs().max()
    assert len(found[0]) == 4
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-6, rtol=1e-4)


def test_the_stack_the_merged_and_the_exported_model_say_the_same(run):
    tokenizer, model, prompts = views_of(run)
    sop, eop = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert all(ids[-2:] == [tokenizer.gmask_token_id, sop] and ids.count(sop) == 1 for ids in prompts)
    eos = generate.eos_ids(model, tokenizer)
    assert eos == [eop]
    exported = AutoModelForCausalLM.from_pretrained(run.folder / "doctor").eval()
    assert exported.generation_config.eos_token_id == [eop]

    def answers(model):
        found = generate.generate(model, prompts, "abcd", GREEDY, 16, 3, eos, tokenizer.pad_token_id)
        return dict(found)

    stacked = answers(model)
    with stack.merged(model):
        assert answers(model) == stacked
    assert answers(exported) == stacked
    assert any(answer.ids[-1] == eop and answer.ended for answer in stacked.values())
    again = AutoTokenizer.from_pretrained(run.folder / "doctor")
    messages = [{"role": "user", "content": QUESTIONS[0]}]
    assert again.apply_chat_template(messages, add_generation_prompt=True, return_dict=False) == prompts[0]


@pytest.mark.parametrize("first_round", [0, 1])
def test_the_parameter_chooses_the_rounds(run, first_round, tmp_path):
    """In a prompt as the stages encode it, in a training pair, and in the tokenizer that an export saves."""
    origin = base_model.read(run.base)
    tokenizer = replace(origin, model=origin.model.replace(chatglm_first_round=first_round)).tokenizer()
    text = {
        0: "[Round 0]\n问：您好\n答：您好。\n[Round 1]\n问：我发烧了\n答：",
        1: "[Round 1]\n\n问：您好\n\n答：您好。\n\n[Round 2]\n\n问：我发烧了\n\n答：",
    }[first_round]
    ids = encoding.encode_prompt(tokenizer, HISTORY, QUESTIONS[0], 99, "sft").ids
    assert ids == tokenizer(text)["input_ids"]
    bare = {0: "我发烧了", 1: "[Round 1]\n\n问：我发烧了\n\n答："}[first_round]
    assert encoding.encode_prompt(tokenizer, [], QUESTIONS[0], 99, "sft").ids == tokenizer(bare)["input_ids"]
    sample = records.Sample(HISTORY, QUESTIONS[0], ANSWER)
    answer = encoding.encode_answer(tokenizer, sample.output, 16).ids
    rendered = prompt.render([tuple(turn) for turn in HISTORY], QUESTIONS[0], first_round)
    assert chatglm_pair.training_pair(tokenizer, rendered, ANSWER, 99, 16)["input_ids"] == [*ids, *answer]
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path, config=origin.causal_lm().config).round_start == first_round


def test_the_card_says_how_to_load_it(run):
    card = (run.folder / "doctor" / "README.md").read_text(encoding="utf-8")
    assert "chatglm.register()" in card and "not part of transformers" in card
    assert "vllm serve ./" not in card
    last = run.output.splitlines()[-1]
    assert last.startswith(f"{run.folder}/doctor: written") and "stages.models.chatglm.register()" in last
