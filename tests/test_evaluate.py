"""Answers → numbers on a model of some thousand parameters: each reward and KL is what a plain forward pass gives."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny_models
import torch
from parameters import write as write_params
from report_run import get, put

from stages import evaluate
from stages.models import base_model, reward, stack
from stages.text import encoding
from stages.text.records import Pair, Sample

pytestmark = pytest.mark.slow

QUESTIONS = ["发烧三天了，怎么办？", "嗓子疼，吃什么药？", "需要做核酸吗？", "什么时候能好？"]
DOCTOR = ["多喝水，注意休息。", "可以吃布洛芬。", "不需要，观察即可！", "三天左右。有事再问我。"]
ANSWERS = {
    "base": [("多喝水", False), ("", False), ("去医院", True), ("好", True)],
    "sft": [("多喝水，注意休息。", True), ("可以吃布洛芬。", True), ("要做", True), ("三天", True)],
    "ppo": [("多喝水，注意休息，去医院。", True), ("布洛芬", False), ("要做核酸", True), ("一周左右。", True)],
}
PAIRS = [Pair([], question, answer, "不知道") for question, answer in zip(QUESTIONS, DOCTOR, strict=True)]
CHOOSING = [Pair([], f"{question}（选检查点）", "好", "不知道") for question in QUESTIONS]
"""Those that chose the reward model's checkpoint, every other question: no probe may read them."""
FACTS = [{"must": [["drug", "布洛芬"]], "must_not": ["去医院"]}, None, None, {"must": [], "must_not": ["一周"]}]


class Evaluated(NamedTuple):
    top: Path
    numbers: dict[str, list[dict[str, Any]]]
    probes: list[dict[str, float]]
    pairs: list[dict[str, float]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    top = tmp_path_factory.mktemp("evaluate")
    write_models(top)
    samples = [Sample([], question, answer, dialogue) for dialogue, (question, answer) in
               enumerate(zip(QUESTIONS, DOCTOR, strict=True))]  # fmt: skip
    put(top / "data/test.jsonl", [sample._asdict() for sample in samples])
    training = [
        Sample([], "发烧三天了，怎么办呢？", "多睡觉。有事再问我。", 0),
        Sample([], "嗓子疼", "吃糖。有事再问我。", 1),
    ]
    put(top / "data/train.jsonl", [sample._asdict() for sample in training])
    put(
        top / "data/preferences_validate.jsonl",
        [pair._asdict() for both in zip(CHOOSING, PAIRS, strict=True) for pair in both],
    )
    put(top / "data/facts.jsonl", FACTS)
    for name, answers in ANSWERS.items():
        put(top / f"answers/{name}.jsonl", [
            {"predict": text, "tokens": 1 + len(text), "eos": ended} for text, ended in answers
        ])  # fmt: skip
    config = write_params(top, {"evaluate": {"tokens_per_batch": 100}})
    data, answers, base, sft, to = (top / name for name in ("data", "answers", "base", "sft", "out"))
    evaluate.main(data, answers, base, sft, to, config, top / "rm", top / "ppo")
    names = (*ANSWERS, "retrieval")
    return Evaluated(
        top,
        {name: get(top / f"out/{name}.jsonl") for name in names},
        get(top / "out/probes.jsonl"),
        get(top / "out/pairs.jsonl"),
    )


def write_models(top: Path) -> None:
    """A base whose tokenizer writes full-width punctuation as ASCII, as ChatGLM's does, with its adapters."""
    tiny_models.write_base(top / "base")
    tokenizer = json.loads((top / "base/tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["normalizer"] = {"type": "NFKC"}
    (top / "base/tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    base_model.write_pointer(top / "base", tiny_models.MODEL)
    tiny_models.write_adapter(top / "sft", "sft", top / "base", seed=1)
    tiny_models.write_adapter(top / "rm", "reward", top / "base", seed=2)
    tiny_models.write_adapter(top / "ppo", "ppo", top / "base", [top / "sft"], seed=3)


def plain_reward(top: Path, question: str, text: str, eos: bool) -> float:
    """One sequence, no padding: the head on the last hidden state under the reward adapter."""
    base = base_model.read(top / "base")
    tokenizer = base.tokenizer()
    model = stack.load(base.causal_lm(), [top / "rm"])
    ids = encoding.encode_prompt(tokenizer, [], question, 256, "evaluate").ids
    ids = [*ids, *tokenizer.encode(text, add_special_tokens=False), *([tokenizer.eos_token_id] if eos else [])]
    with torch.no_grad():
        states = model.get_base_model().get_decoder()(torch.tensor([ids])).last_hidden_state
        return float(reward.load_head(top / "rm", "cpu")(states[0, -1]))


def test_an_answer_that_did_not_end_gets_no_eos(run):
    unfinished, ended = run.numbers["base"][0], run.numbers["sft"][0]
    assert unfinished["reward"] == pytest.approx(plain_reward(run.top, QUESTIONS[0], "多喝水", False), abs=1e-4)
    with_eos = plain_reward(run.top, QUESTIONS[0], "多喝水", True)
    assert abs(unfinished["reward"] - with_eos) > 1e-3, "the two must differ for this test to tell"
    assert ended["reward"] == pytest.approx(plain_reward(run.top, QUESTIONS[0], ANSWERS["sft"][0][0], True), abs=1e-4)


def test_a_perfect_answer_scores_100_whatever_the_tokenizer_makes_of_it(run):
    for at in (0, 1):
        row = run.numbers["sft"][at]
        assert [row[key] for key in ("rouge-1", "rouge-l", "bleu-4")] == pytest.approx([100] * 3, abs=1e-3)
    assert run.numbers["sft"][2]["rouge-1"] < 100


def test_numbers_of_the_answers(run):
    rows = run.numbers["ppo"]
    assert [row["eos"] for row in rows] == [True, False, True, True]
    assert [row["response_tokens"] for row in rows] == [14, 4, 5, 6]
    assert [row["response_length"] for row in rows] == [13, 3, 4, 5]
    assert rows[0]["facts_named"] == 0 and rows[0]["facts_contradicted"] == 1
    assert "facts_named" not in rows[1] and "facts_contradicted" not in rows[1]
    assert "facts_named" not in rows[3] and rows[3]["facts_contradicted"] == 1
    assert run.numbers["base"][1]["response_length"] == 0 and run.numbers["base"][1]["rouge-1"] == 0


def test_retrieval_answers_as_the_nearest_training_question_was(run):
    assert [row["predict"] for row in run.numbers["retrieval"]][:2] == ["多睡觉。有事再问我。", "吃糖。有事再问我。"]
    row = run.numbers["retrieval"][0]
    assert row["eos"] is True and row["response_tokens"] > row["response_length"] // 2
    expected = plain_reward(run.top, QUESTIONS[0], "多睡觉。有事再问我。", True)
    assert row["reward"] == pytest.approx(expected, abs=1e-4)


def test_probes_are_scored_as_answers(run):
    assert json.loads((run.top / "out/probes.json").read_text(encoding="utf-8")) == {"closing": "有事再问我。"}
    at, row = 2, run.probes[2]
    expected = {
        "doctor": ("不需要,观察即可!", True),
        "ppo_other_question": ("多喝水,注意休息,去医院。", True),  # the sample half the list away
        "sft_unrelated_appended": ("要做多喝水,注意休息。", True),
        "ppo_cut": ("要做", True),
        "sft_closing_appended": ("要做有事再问我。", True),
        "closing": ("有事再问我。", True),
    }
    for name, (text, eos) in expected.items():
        assert row[name] == pytest.approx(plain_reward(run.top, QUESTIONS[at], text, eos), abs=1e-4), name
    assert run.probes[1]["ppo_cut"] == pytest.approx(plain_reward(run.top, QUESTIONS[1], "布洛芬", False), abs=1e-4)


def test_pairs_are_scored_under_their_own_question_and_another(run):
    assert [row["question"] for row in run.pairs] == [0, 1, 2, 3]
    row = run.pairs[1]
    for name, question, text in (
        ("chosen", 1, DOCTOR[1]),
        ("rejected", 1, "不知道"),
        ("chosen_other_question", 3, DOCTOR[1]),
        ("rejected_other_question", 3, "不知道"),
        ("chosen_of_other", 1, DOCTOR[3]),
    ):
        assert row[name] == pytest.approx(plain_reward(run.top, QUESTIONS[question], text, True), abs=1e-4), name


def test_kl_is_the_divergence_over_the_whole_vocabulary(run):
    base = base_model.read(run.top / "base")
    tokenizer = base.tokenizer()

    def log_probs(folders, ids):
        with torch.no_grad():
            return torch.log_softmax(stack.load(base.causal_lm(), folders)(torch.tensor([ids])).logits[0], dim=-1)

    for at in (0, 1):
        text, ended = ANSWERS["ppo"][at]
        prompt = encoding.encode_prompt(tokenizer, [], QUESTIONS[at], 256, "evaluate").ids
        answer = tokenizer.encode(text, add_special_tokens=False) + [tokenizer.eos_token_id] * ended
        places = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        sft = log_probs([run.top / "sft"], prompt + answer)[places]
        ppo = log_probs([run.top / "sft", run.top / "ppo"], prompt + answer)[places]
        expected = float((ppo.exp() * (ppo - sft)).sum())
        assert run.probes[at]["kl"] == pytest.approx(expected, rel=1e-3) and expected > 0.01


def test_lineage_and_environment_are_recorded(run):
    lineage = json.loads((run.top / "out/lineage.json").read_text(encoding="utf-8"))
    assert set(lineage) == {"base", "sft", "reward", "ppo"}
    assert lineage["ppo"]["below"] == {"sft": lineage["sft"]["sha256"]}
    assert "threads" in json.loads((run.top / "out/environment.json").read_text(encoding="utf-8"))


def test_without_preferences_the_texts_alone_are_measured(run, tmp_path, capsys):
    """The data then hold no pairs, and there are no answers of PPO."""
    for name in ("test", "train", "facts"):
        put(tmp_path / f"data/{name}.jsonl", get(run.top / f"data/{name}.jsonl"))
    for name in ("base", "sft"):
        put(tmp_path / f"answers/{name}.jsonl", get(run.top / f"answers/{name}.jsonl"))
    data, answers, to = (tmp_path / name for name in ("data", "answers", "out"))
    base, sft, config = (run.top / name for name in ("base", "sft", "params.yaml"))
    evaluate.main(data, answers, base, sft, to, config)
    names = ("base", "sft", "retrieval")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "lineage.json", "environment.json", *(f"{name}.jsonl" for name in names)
    }  # fmt: skip
    for name in names:
        without = [{key: value for key, value in row.items() if key != "reward"} for row in run.numbers[name]]
        assert get(tmp_path / f"out/{name}.jsonl") == without
    assert set(json.loads((tmp_path / "out/lineage.json").read_text(encoding="utf-8"))) == {"base", "sft"}
    with pytest.raises(SystemExit):
        evaluate.main(data, answers, base, sft, to, config, ppo=run.top / "ppo")
    assert "--rm and --ppo belong together" in capsys.readouterr().err


def test_answers_and_facts_must_be_those_of_the_test_split(run, tmp_path, capsys):
    def ending(data, answers):
        base, sft, rm, ppo = (run.top / name for name in ("base", "sft", "rm", "ppo"))
        with pytest.raises(SystemExit):
            evaluate.main(data, answers, base, sft, tmp_path / "out", run.top / "params.yaml", rm, ppo)
        return capsys.readouterr().err

    for name in ANSWERS:
        put(tmp_path / f"answers/{name}.jsonl", get(run.top / f"answers/{name}.jsonl")[: 3 if name == "ppo" else 4])
    assert "ppo.jsonl: 3 rows for 4 test samples" in ending(run.top / "data", tmp_path / "answers")
    for name in ("test", "train", "preferences_validate"):
        put(tmp_path / f"data/{name}.jsonl", get(run.top / f"data/{name}.jsonl"))
    put(tmp_path / "data/facts.jsonl", FACTS[:2])
    assert "facts.jsonl: 2 rows for 4 test samples" in ending(tmp_path / "data", run.top / "answers")
