"""Probes: which texts are scored, which phrases stand out, and sentences that claim what the intervals show."""

import json
import random

import pytest
import report_run

from stages import preprocess
from stages.importing import contamination, facts
from stages.metrics import phrases, retrieval
from stages.metrics import probes as texts
from stages.metrics.bootstrap import Interval
from stages.metrics.probes import Text
from stages.page import findings, i18n, inputs, probes, tables
from stages.runtime.errors import UserError
from stages.text import records
from stages.text.records import Sample


def test_an_other_answer_comes_from_another_dialogue():
    assert texts.others(["a", "a", "b", "b"]) == [2, 3, 0, 1]
    assert texts.others(["a", "a", "a", "b"]) == [3, 3, 3, 1]
    assert texts.others(["a", "a"]) == [0, 1], "there is none"
    draw = random.Random(1)
    groups = [draw.randint(0, 5) for _ in range(50)]
    assert all(groups[at] != group for at, group in zip(texts.others(groups), groups, strict=True))


def test_texts_of_the_probes():
    sft, ppo = [Text("短", True), Text("较长的", False)], [Text("短一些", False), Text("较", True)]
    found = texts.texts(["医", "生"], sft, ppo, [0, 1], "再见。")
    assert found == {
        "doctor": [Text("医", True), Text("生", True)],
        "ppo_other_question": [ppo[1], ppo[0]],
        "sft_unrelated_appended": [Text("短较长的", False), Text("较长的短", True)],
        "ppo_cut": [Text("短", False), Text("较", True)],
        "sft_closing_appended": [Text("短再见。", True), Text("较长的再见。", False)],
        "closing": [Text("再见。", True)] * 2,
    }
    assert {"closing", "sft_closing_appended"}.isdisjoint(texts.texts(["医", "生"], sft, ppo, [0, 1], ""))


def test_phrases_that_one_writer_picked_up():
    ordinary = ["多喝水，注意休息。", "可以吃布洛芬，饭后吃。", "需要做核酸检测吗？"] * 20
    ppo = [text + "有变化随时再问我。" if at % 2 else text for at, text in enumerate(ordinary)]
    found = phrases.picked_up({"ppo": ppo, "sft": ordinary, "doctor": ordinary}, "ppo")
    assert [phrase.text for phrase in found] == ["有变化随时再问我"], "one phrase, not its parts"
    assert found[0].answers == {"ppo": 30, "sft": 0, "doctor": 0} and found[0].z > 3
    doctors = [text + "有变化随时再问我。" for text in ordinary]
    assert phrases.picked_up({"ppo": ppo, "sft": ordinary, "doctor": doctors}, "ppo") == [], "the doctors say it too"
    assert phrases.picked_up({"ppo": ordinary, "sft": ordinary}, "ppo") == []
    few = ordinary[:-4] + [text + "有变化随时再问我。" for text in ordinary[-4:]]
    assert phrases.picked_up({"ppo": few, "sft": ordinary}, "ppo") == []


def test_usual_endings():
    answers = ["多喝水。有事再问我。", "吃药！有事再问我。", "休息。再见。", "有事再问我。", "没有句号"]
    assert phrases.endings(answers, 2) == ["有事再问我。", "再见。"]
    assert phrases.endings(["只有一句。"], 1) == []


def test_the_nearest_question():
    known = ["嗓子疼怎么办", "发烧三天怎么办", "发烧三天怎么办", "发烧三天怎么办，老人，有糖尿病"]
    # 发烧怎么办 shares 发烧 怎么 么办 with the second: 2·3/(4+6); with the first 怎么 么办: 2·2/(4+5)
    assert retrieval.nearest(["发烧怎么办", "嗓子疼", "xyz"], known) == [1, 0, 0]


def test_contamination_counts_what_stands_in_training():
    train = [Sample([["发烧吗", "是的，三天了，请看"]], "吃什么", "布洛芬，一天三次，饭后", 0)]
    test = [
        Sample([], "发烧吗", "是的，三天了，请看", 0),  # both in a history, as a pair
        Sample([], "吃什么", "是的，三天了，请看", 1),  # both, but not together
        Sample([], "别的", "好的", 2),  # too short to count
        Sample([], "另外", "从来没有说过的回答。", 3),
    ]
    assert contamination.overlap(test, train) == {
        "questions": 0.5, "answers": 0.6667, "pairs": 0.25, "answers_compared": 3
    }  # fmt: skip
    assert contamination.overlap(test[2:3], train)["answers"] == 0


FACTS = {
    "vocabulary": {"drug": ["布洛芬", "板蓝根"], "test": ["核酸"]},
    "test": [
        {"key": facts.key([], "吃什么"), "must": [["drug", "布洛芬"]], "may": ["布洛芬"], "must_not": ["一次三片"]},
        {"key": facts.key([["吃什么", "布洛芬"]], "然后呢"), "must": [], "may": [], "must_not": []},
    ],
}


def test_facts_are_joined_by_history_and_question():
    samples = [
        Sample([], "吃什么", "", 0),
        Sample([["吃什么", "布洛芬"]], "然后呢", "", 0),
        Sample([], "然后呢", "", 1),
    ]
    assert facts.of_samples(FACTS, samples, "facts.json") == [
        {"must": [["drug", "布洛芬"]], "must_not": ["板蓝根", "核酸", "一次三片"]},
        {"must": [], "must_not": ["布洛芬", "板蓝根", "核酸"]},
        None,
    ]
    with pytest.raises(UserError, match=r"facts\.json: not the facts of test questions"):
        facts.of_samples([1], samples, "facts.json")


def test_preprocess_numbers_the_dialogues_and_joins_facts(tmp_path, params, capsys):
    dialogue = ["病人：吃什么", "医生：布洛芬，一天三次", "病人：然后呢", "医生：多喝水，注意休息"]
    for split in ("train", "validate", "test"):
        (tmp_path / f"{split}_data.json").write_text(json.dumps([["病人：空"], dialogue]), encoding="utf-8")
    preference = [{"instruction": f"问{n}", "input": "", "output": ["好", "坏"]} for n in range(10)]
    (tmp_path / "preferences.json").write_text(json.dumps(preference), encoding="utf-8")
    sources = {"dialogues": str(tmp_path), "preferences": str(tmp_path / "preferences.json")}
    config = params(tmp_path, {"data": sources})

    def run(to):
        preprocess.main(to, to / "log", config)
        return json.loads((to / "log/metrics.json").read_text(encoding="utf-8"))

    report = run(tmp_path / "without")
    samples = records.read_samples(tmp_path / "without/test.jsonl")
    assert [sample.dialogue for sample in samples] == [1, 1] and not (tmp_path / "without/facts.jsonl").exists()
    assert report["contamination"] == {"questions": 1, "answers": 1, "pairs": 1, "answers_compared": 2}
    assert "100.0% of the answers, 100.0% of the pairs" in capsys.readouterr().out
    (tmp_path / "facts.json").write_text(json.dumps(FACTS), encoding="utf-8")
    assert run(tmp_path / "with")["facts"] == {"test": 1}
    rows = report_run.get(tmp_path / "with/facts.jsonl")
    assert rows[0]["must"] == [["drug", "布洛芬"]] and rows[1] is None


def test_samples_of_an_older_run_know_no_dialogue(tmp_path):
    path = tmp_path / "samples.jsonl"
    report_run.put(path, [{"history": [], "instruction": "问", "output": "答"}])
    assert records.read_samples(path) == [Sample([], "问", "答", None)]
    report_run.put(path, [{"history": [], "instruction": "问"}])
    with pytest.raises(UserError, match="line 1: expected an object with the keys history, instruction, output"):
        records.read_samples(path)
    report_run.put(path, [{"history": [], "instruction": "问", "output": "答", "other": 1}])
    with pytest.raises(UserError, match="line 1: expected an object"):
        records.read_samples(path)


# ----------------------------------------------------------------------------------------------------------------------
# What the report makes of them


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    options = report_run.write(tmp_path_factory.mktemp("run"))
    return inputs.read(options["reports"], options["params_file"])


def test_the_gain_is_taken_apart(run):
    """In this run PPO's answers cut to SFT's length have SFT's rewards, and no answer is read with its question."""
    found = probes.measure(run, 200, 1)
    sft, ppo = run.scores["sft"], run.scores["ppo"]
    gains = [after - before for before, after in zip(sft["reward"], ppo["reward"], strict=True)]
    assert found.gain.value == pytest.approx(sum(gains) / 40) and found.gain.units == 20
    assert found.gain_when_cut[:3] == (0, 0, 0) and not found.gain_when_cut.beyond_chance
    lengths = zip(sft["response_length"], ppo["response_length"], strict=True)
    equal = [gain for gain, (before, after) in zip(gains, lengths, strict=True) if abs(after - before) <= 3]
    assert found.equal_length == len(equal)
    if equal:
        assert found.gain_at_equal_length.value == pytest.approx(sum(equal) / len(equal))
    assert found.wins.plain.value == sum(gain > 0 for gain in gains) / 40
    assert found.question_gain.value == 0 and not found.question_gain.beyond_chance
    assert found.swapped.value == 1 and found.swapped.units == 40
    assert found.kl.value == 1.5
    assert found.gains["sft_closing_appended"].value == pytest.approx(1)
    assert found.gains["ppo_other_question"].value == 0
    assert [phrase.text for phrase in found.picked_up] == ["有事再问"]


def test_without_answers_of_equal_length_there_is_no_such_gain(run):
    longer = [length + 100 for length in run.scores["sft"]["response_length"]]
    scores = run.scores | {"ppo": run.scores["ppo"] | {"response_length": longer}}
    found = probes.measure(run._replace(scores=scores), 100, 1)
    assert found.gain_at_equal_length is None and found.equal_length == 0
    assert len(findings.ppo(found)) == 5


def test_data_without_a_usual_closing_have_no_such_probe(run):
    without = {name: values for name, values in run.probes.items() if name not in inputs.CLOSING}
    found = probes.measure(run._replace(probes=without, closing=""), 100, 1)
    assert set(found.gains) == {"doctor", "ppo_other_question", "sft_unrelated_appended"}
    assert len(tables.probes(found, "").rows) == 3 and len(findings.reward_model(found, "")) == 5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (Interval(0.5, 0.2, 0.8, 80), "+0.50 (+0.20\xa0…\xa0+0.80): higher."),
        (Interval(-0.5, -0.8, -0.2, 80), "−0.50 (−0.80\xa0…\xa0−0.20): lower."),
        (Interval(0.5, -0.2, 1.2, 80), "+0.50 (−0.20\xa0…\xa0+1.20): no difference shown."),
        (Interval(0.5, 0.2, 0.8, 19), "+0.50 (+0.20\xa0…\xa0+0.80): no difference shown."),
        (Interval(0.5, 0.5, 0.5, 80), "+0.50 (+0.50\xa0…\xa0+0.50): no difference shown."),
    ],
)
def test_a_finding_claims_what_its_interval_shows(run, change, sentence):
    found = probes.measure(run, 100, 1)._replace(gain=change)
    assert i18n.say(findings.ppo(found)[0], "en").endswith(sentence)


@pytest.mark.parametrize(
    ("share", "mark"),
    [
        (Interval(0.7, 0.6, 0.8, 80), "above 50 %."),
        (Interval(0.3, 0.2, 0.4, 80), "below 50 %."),
        (Interval(0.6, 0.4, 0.8, 80), "not shown to differ from 50 %."),
        (Interval(0.7, 0.6, 0.8, 19), "not shown to differ from 50 %."),
    ],
)
def test_a_share_is_held_against_one_half(run, share, mark):
    found = probes.measure(run, 100, 1)
    found = found._replace(wins=found.wins._replace(length_controlled=share))
    assert i18n.say(findings.ppo(found)[-2], "en").endswith(mark)


def test_the_table_of_contamination(run):
    rows = tables.contamination(run).rows
    assert [cells[1].text for cells in rows] == ["25.0\xa0%", "12.5\xa0%", "0.0\xa0%"]
    older = run._replace(documents=run.documents | {"data": {}})
    assert tables.contamination(older) is None
