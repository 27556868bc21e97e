"""Dialogues → samples: the rule on a dialogue with every quirk, and the published counts on the published data."""

import json
from pathlib import Path

import pytest

from stages.importing.dialogues import MAX_TURNS, DialogueRules, to_samples
from stages.runtime.errors import UserError
from stages.text.records import Sample

HAODF = DialogueRules()
PUBLISHED = Path(__file__).parents[1] / "data" / "covid-dialogue"

DIALOGUE = [
    "病人：",  # an empty question is a question
    "医生：感谢您的信任，病情资料我已详细阅读。根据您现有的资料，建议：多喝水。",  # 4 characters are left
    "病人：医生：我发烧了",  # only the speaker's own prefix is cut
    "医生：做核酸检测根据您现有的资料，建议：并居家",  # boilerplate amid the text
    "病人：还要多久？",
    "医生：医生已经通过语音回答了您的问题，请及时收听。",  # nothing is left
    "病人：谢谢",
    "医生： 不客气！\n",  # 6 characters, spaces and line breaks counted
    "病人：再见",  # a trailing odd turn
]


def test_every_quirk():
    samples, counts = to_samples(DIALOGUE, HAODF, "here")
    first, second, third, fourth = (
        ["", "多喝水。"],
        ["医生：我发烧了", "做核酸检测并居家"],
        ["还要多久？", ""],
        ["谢谢", " 不客气！\n"],
    )
    assert samples == [Sample([first], *second), Sample([first, second, third], *fourth)]
    assert counts == {
        "dialogues": 1, "turns": 9, "pairs": 4, "samples": 2,
        "answers_with_boilerplate": 3, "dropped_trailing_turn": 1, "dropped_short_answer": 1,
        "dropped_empty_answer": 1,
    }  # fmt: skip


def test_five_characters_are_enough():
    samples, _ = to_samples(["病人：一", "医生：一二三四五", "病人：二", "医生：一二三四"], HAODF, "here")
    assert samples == [Sample([], "一", "一二三四五")]
    assert to_samples([], HAODF, "here")[0] == []


def test_what_is_special_to_a_source_is_a_parameter():
    rules = DialogueRules(patient_prefix="P: ", doctor_prefix="D: ", boilerplate=("Hello.",), min_answer_length=1)
    samples, counts = to_samples(["P: a", "D: Hello.b", "P: c", "D: Hello."], rules, "here")
    assert samples == [Sample([], "a", "b")] and counts["answers_with_boilerplate"] == 2


def test_the_longest_dialogue_takes_no_time():
    samples, _ = to_samples(["病人：我发烧三天了", "医生：多喝水，好好休息"] * (MAX_TURNS // 2), HAODF, "here")
    assert len(samples) == MAX_TURNS // 2


@pytest.mark.parametrize(
    ("dialogue", "message"),
    [
        ("病人：x", "here: a dialogue must be a list of turns, not str"),
        (["医生：您好"], "here, turn 0: expected a text that begins with `病人：`, found '医生：您好'"),
        (["病人：a", "病人：b"], "here, turn 1: expected a text that begins with `医生：`, found '病人：b'"),
        (["病人：a", 7], "here, turn 1: .*, found 7"),
        (["病人：a", "医生：b"] * 501, "here: has 1002 turns, and 1000 are the most; split it"),
    ],
)
def test_what_is_no_dialogue_is_named(dialogue, message):
    with pytest.raises(UserError, match=message):
        to_samples(dialogue, HAODF, "here")


@pytest.mark.parametrize(("split", "samples"), [("train", 3471), ("validate", 333), ("test", 410)])
def test_the_published_data_gives_the_published_counts(split, samples):
    file = PUBLISHED / f"{split}_data.json"
    if not file.is_file():
        pytest.skip(f"{file} is not there: `make data` fetches it")
    found = [to_samples(dialogue, HAODF, "")[0] for dialogue in json.loads(file.read_text(encoding="utf-8"))]
    assert sum(map(len, found)) == samples
