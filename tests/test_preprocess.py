"""The stage: all of its files or none, what it tells, and what it says of data in another format."""

import json
from pathlib import Path

import pytest
import yaml

from stages import preprocess
from stages.text import records

ROOT = Path(__file__).parents[1]
DIALOGUES = [
    [f"病人：发烧{i}天了", "医生：根据您现有的资料，建议：多喝水\u2028。", "病人：谢谢", "医生：好"] for i in range(6)
]
PAIRS = [{"instruction": f"咳嗽{i}天", "input": "", "output": ["看医生", "不知道", "看医生"]} for i in range(8)]


@pytest.fixture
def run(tmp_path):
    """Write the data, run the stage on them; `change` files by name and `data` parameters by keyword."""

    def stage(change: dict[str, object] = {}, **data: object) -> Path:
        files = dict.fromkeys(("train_data", "validate_data", "test_data"), DIALOGUES) | {"preferences": PAIRS} | change
        for name, content in files.items():
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
        document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        document["data"] |= {"dialogues": str(tmp_path), "preferences": str(tmp_path / "preferences.json")} | data
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
        preprocess.main(tmp_path / "out", tmp_path / "log", tmp_path / "params.yaml")
        return tmp_path / "out"

    return stage


def test_what_was_dropped_is_counted_on_the_console(run, capsys):
    out = run()
    assert records.read_samples(out / "train.jsonl")[0] == records.Sample([], "发烧0天了", "多喝水\u2028。", dialogue=0)
    printed = capsys.readouterr().out
    assert (
        "train: 6 dialogues, 24 turns, 12 pairs, 6 answers with boilerplate, 6 dropped short answer, 6 samples"
        in printed
    )
    assert "preferences: 8 records, 16 pairs, 8 dropped ties, 12 train, 4 validate" in printed


def test_what_is_special_to_haodf_is_a_parameter(run):
    out = run(boilerplate=[], min_answer_length=1)
    samples = records.read_samples(out / "train.jsonl")
    assert [sample.output for sample in samples[:2]] == ["根据您现有的资料，建议：多喝水\u2028。", "好"]
    english = [["Patient: I have a fever", "Doctor: Drink plenty of water."]]
    changed = dict.fromkeys(("train_data", "validate_data", "test_data"), english)
    out = run(changed, patient_prefix="Patient: ", doctor_prefix="Doctor: ")
    assert records.read_samples(out / "test.jsonl") == [
        records.Sample([], "I have a fever", "Drink plenty of water.", dialogue=0)
    ]


def test_runs_that_differ_in_seed_share_their_data(run, tmp_path):
    file = tmp_path / "params.yaml"
    first = (run() / "preferences_validate.jsonl").read_bytes()
    file.write_text(file.read_text().replace("\nseed: 42", "\nseed: 43"))
    preprocess.main(tmp_path / "out", tmp_path / "log", file)
    assert (tmp_path / "out/preferences_validate.jsonl").read_bytes() == first
    assert (run(seed=43) / "preferences_validate.jsonl").read_bytes() != first


def test_an_empty_list_of_preferences_is_no_mistake(run):
    out = run({"preferences": []})
    assert (out / "preferences_train.jsonl").read_text() == ""
    assert json.loads((out.parent / "log" / "metrics.json").read_text())["preferences"]["pairs"] == 0


SHAREGPT = [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]
ENTRY = {"key": "x", "must": [["drug", "布洛芬"]], "may": [], "must_not": []}
FACTS = {"vocabulary": {"drug": ["布洛芬"]}, "test": [ENTRY]}
TRL = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_data": SHAREGPT}, "}; import it once: `make import FROM=train_data.json`"),
        ({"preferences": TRL}, "}; import it once: `make import PREFERENCES=preferences.json`"),
        ({"preferences": DIALOGUES}, "…]: these are dialogues, not preferences"),
        ({"preferences": PAIRS[:2]}, "preferences.json: too few records for a training and a held-out part (2 records"),
        (
            {"facts": FACTS | {"vocabulary": {"drug": "布洛芬"}}},
            'facts of test questions (TypeError(\'"布洛芬" where a list',
        ),
        ({"facts": FACTS | {"test": [ENTRY | {"must": ["布洛芬"]}]}}, '"布洛芬" where a list of texts belongs'),
        ({"facts": FACTS | {"test": [ENTRY | {"must": [["drug", 5]]}]}}, '["drug", 5] where a list of texts belongs'),
        ({"test_data": [["病人：a"]]}, "test_data.json: no dialogue of it gives a sample (1 dialogues, 1 turns"),
        ({"test_data": [["病人：a", "医生：\x1b[2J"], ["b"]]}, "test_data.json, dialogue 1, turn 0: expected a text"),
        ({"preferences": '[{"instruction": "\\ud800"}]'}, "preferences.json, record 0: a text with half a character"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(run, tmp_path, capsys, change, message):
    with pytest.raises(SystemExit):
        run(change)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert message in error.replace(f"{tmp_path}/", "")
    assert not (tmp_path / "out").exists() and not (tmp_path / "log").exists()


def test_a_file_in_the_place_of_the_folder(run, tmp_path, capsys):
    for content, message in ((SHAREGPT, "import it once: `make import FROM="), (DIALOGUES, "is a file; name a folder")):
        (tmp_path / "chats.json").write_text(json.dumps(content))
        with pytest.raises(SystemExit):
            run(dialogues=str(tmp_path / "chats.json"))
        assert message in capsys.readouterr().err
