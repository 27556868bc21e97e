"""The import: every format becomes the same dialogues, nothing is guessed, what is lost is counted, and it trains."""

import json
import shutil
from pathlib import Path

import datasets
import pytest
import yaml

from stages import import_data, preprocess
from stages.importing import formats

ROOT = Path(__file__).parents[1]
TURNS = [("发烧{0}天了\u2028怎么办", "多喝水"), ("{0}天够吗？", "再{0}天。")]
COUNT = 12


def chats(make):
    return [make([(q.format(i), a.format(i)) for q, a in TURNS]) for i in range(COUNT)]


def rows(turns, role="role", content="content", names=("user", "assistant")):
    return [{role: name, content: text} for turn in turns for name, text in zip(names, turn, strict=True)]


def parts(turns):
    return [row | {"content": [{"type": "text", "text": row["content"]}]} for row in rows(turns)]


def shared(turns, names=("human", "gpt")):
    return rows(turns, "from", "value", names)


def alpaca(turns):
    *earlier, (question, answer) = turns
    return {"instruction": question, "input": "", "output": answer, "history": [list(turn) for turn in earlier]}


DIALOGUES = {
    "openai": lambda turns: {"messages": rows(turns)},
    "openai, bare": rows,
    "openai, text parts": lambda turns: {"messages": parts(turns), "id": 7},
    "sharegpt": lambda turns: {"conversations": shared(turns), "id": "x"},
    "sharegpt, other names": lambda turns: {"conversations": shared(turns, ("user", "assistant"))},
    "alpaca": alpaca,
    "question-answer, conversational": lambda turns: {"prompt": rows(turns)[:-1], "completion": rows(turns)[-1:]},
    "covid": lambda turns: [p + t for turn in turns for p, t in zip(("病人：", "医生："), turn, strict=True)],
}


def history_alpaca(turns):
    return {key: value for key, value in alpaca(turns).items() if key != "output"}


PREFERENCES = {
    "trl, plain": lambda turns: {"prompt": turns[0][0], "chosen": "看医生", "rejected": "不知道"},
    "trl, conversational": lambda turns: {
        "prompt": rows(turns)[:-1],
        "chosen": [{"role": "assistant", "content": "看医生"}],
        "rejected": [{"role": "assistant", "content": "不知道"}],
    },
    "trl, implicit prompt": lambda turns: {
        key: [*rows(turns)[:-1], {"role": "assistant", "content": answer}]
        for key, answer in (("chosen", "看医生"), ("rejected", "不知道"))
    },
    "trl, UltraFeedback": lambda turns: {"prompt": turns[0][0], "score_chosen": 9.0} | {
        key: [{"role": "user", "content": turns[0][0]}, {"role": "assistant", "content": answer}]
        for key, answer in (("chosen", "看医生"), ("rejected", "不知道"))
    },
    "alpaca-preference": lambda turns: history_alpaca(turns) | {"chosen": "看医生", "rejected": "不知道"},
    "sharegpt-preference": lambda turns: {
        "conversations": shared(turns)[:-1],
        "chosen": {"from": "gpt", "value": "看医生"},
        "rejected": {"from": "gpt", "value": "不知道"},
    },
    "ranking": lambda turns: history_alpaca(turns) | {"output": ["看医生", "不知道"]},
}  # fmt: skip


class Importer:
    def __init__(self, top: Path):
        self.top = top
        shutil.copy(ROOT / "profiles" / "smallest.yaml", top)

    def write(self, name: str, records: list, lines: bool = False) -> str:
        dumped = [json.dumps(record, ensure_ascii=False) for record in records]
        text = "\n".join(dumped) + "\n" if lines else f"[{', '.join(dumped)}]"
        (self.top / name).write_text(text, encoding="utf-8")
        return str(self.top / name)

    def __call__(self, source: str, **options: object) -> list[list[str]]:
        """Import and give all dialogues, sorted."""
        import_data.main(source, name="mine", data=self.top / "data", profiles=self.top, replace=True, **options)
        return sorted(dialogue for part in self.parts().values() for dialogue in part)

    def parts(self) -> dict[str, list]:
        folder = self.top / "data" / "mine"
        return {part: json.loads((folder / f"{part}_data.json").read_text()) for part in ("train", "validate", "test")}

    def preferences(self) -> list:
        return json.loads((self.top / "data" / "mine" / "preferences.json").read_text())

    def refusal(self, capsys, source: str, **options: object) -> str:
        with pytest.raises(SystemExit):
            self(source, **options)
        line = capsys.readouterr().err
        assert line.startswith("error: ") and line.count("\n") == 1
        assert not (self.top / "data").exists() and not (self.top / "mine.yaml").exists()
        return line.removeprefix("error: ").replace(f"{self.top}/", "")


@pytest.fixture
def importer(tmp_path):
    return Importer(tmp_path)


EXPECTED = sorted(chats(DIALOGUES["covid"]))


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("name", DIALOGUES)
def test_every_format_gives_the_same_dialogues(importer, capsys, name, lines):
    assert importer(importer.write("x", chats(DIALOGUES[name]), lines)) == EXPECTED
    form = formats.BY_NAME[name.split(",")[0]]
    first = capsys.readouterr().out.splitlines()[0]
    assert first.endswith(f"x: {form.about}; {COUNT} of {COUNT} dialogues can be used")


@pytest.mark.parametrize("name", PREFERENCES)
def test_every_format_of_preferences_is_read(importer, capsys, name):
    source = importer.write("chats.json", chats(DIALOGUES["openai"]))
    importer(source, preferences=importer.write("pairs.jsonl", chats(PREFERENCES[name]), lines=True))
    found = importer.preferences()
    assert len(found) == COUNT and found[3]["output"] == ["看医生", "不知道"] and found[3]["input"] == ""
    single = name in ("trl, plain", "trl, UltraFeedback")
    question, answer = (text.format(3) for text in TURNS[0])
    assert found[3]["instruction"] == (question if single else TURNS[1][0].format(3))
    assert found[3]["history"] == ([] if single else [[question, answer]])
    assert formats.BY_NAME[name.split(",")[0]].about in capsys.readouterr().out


def test_tables_and_data_sets(importer, tmp_path):
    """CSV, TSV, Parquet, a folder of files, and one that `datasets` saved."""
    pairs = [{"question": q.format(i), "answer": a.format(i)} for i in range(COUNT) for q, a in TURNS[:1]]
    expected = sorted([f"病人：{row['question']}", f"医生：{row['answer']}"] for row in pairs)
    table = datasets.Dataset.from_list(pairs)
    for suffix, separator in ((".csv", ","), (".tsv", "\t")):
        lines = [separator.join(f'"{cell}"' for cell in row.values()) for row in pairs]
        (tmp_path / f"x{suffix}").write_text("\n".join([separator.join(pairs[0]), *lines]), encoding="utf-8")
        assert importer(str(tmp_path / f"x{suffix}")) == expected
    table.to_parquet(tmp_path / "x.parquet")
    assert importer(str(tmp_path / "x.parquet")) == expected
    (tmp_path / "folder").mkdir()
    table.to_parquet(tmp_path / "folder" / "x.parquet")
    assert importer(str(tmp_path / "folder")) == expected
    table.save_to_disk(tmp_path / "saved")
    assert importer(str(tmp_path / "saved")) == expected
    messages = datasets.Dataset.from_list(chats(DIALOGUES["openai"]))
    messages.to_parquet(tmp_path / "messages.parquet")
    assert importer(str(tmp_path / "messages.parquet")) == EXPECTED


def test_a_data_set_of_several_splits_is_asked_about(importer, tmp_path, capsys):
    both = datasets.Dataset.from_list(chats(DIALOGUES["sharegpt"])).train_test_split(3, seed=1)
    both.save_to_disk(tmp_path / "saved")
    assert "has the splits train, test; name one: --split train" in importer.refusal(capsys, str(tmp_path / "saved"))
    assert "has no split dev" in importer.refusal(capsys, str(tmp_path / "saved"), split="dev")
    assert importer(str(tmp_path / "saved"), split="all") == EXPECTED
    assert len(importer(str(tmp_path / "saved"), split="train")) == COUNT - 3


def test_what_is_lost_is_counted_with_its_first_place(importer, capsys):
    media = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]
    ask, say = {"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}
    odd = [
        [{"role": "system", "content": "S"}, say, ask, ask, say, ask],  # usable, with changes
        [ask, {"role": "assistant", "content": None, "tool_calls": [{"id": 1}]}],
        [ask, {"role": "tool", "content": "7"}, say],
        [{"role": "user", "content": media}, say],
        [ask],
        [],
        [{"role": "narrator", "content": "a"}, say],
        [{"role": "user", "content": 7}, say],
        [ask, {"role": "assistant", "content": " "}],
        [ask, say],
        [ask, say],
    ]
    records = chats(DIALOGUES["openai"]) + [{"messages": messages} for messages in odd] + [{"other": 1}]
    found = importer(importer.write("x.jsonl", records, lines=True))
    printed = capsys.readouterr().out
    assert f"x.jsonl: {formats.BY_NAME['openai'].about}; {COUNT + 2} of {len(records)} dialogues" in printed
    for line in (
        "dropped 2: tool calls: the pipeline trains on texts alone (first: line 14)",
        "dropped 1: images, sound or video: the pipeline trains on texts alone (first: line 16)",
        "dropped 3: no question with an answer (first: line 17)",
        "dropped 1: a message whose `role` is none of user, assistant and system (first: line 19)",
        "dropped 1: a message without a text (first: line 20)",
        "dropped 1: the same as an earlier one (first: line 23)",
        "dropped 1: not in the format OpenAI messages (first: line 24)",
        "changed: 1 system messages left out",
        "changed: 1 greetings before the first question left out",
        "changed: 1 messages joined with the one before, of the same speaker",
        "changed: 1 questions at the end without an answer left out",
    ):
        assert f"  {line}\n" in printed, line
    assert ["病人：问\n问", "医生：答"] in found and ["病人：问", "医生：答"] in found


def test_a_system_message_can_stand_before_the_question(importer):
    records = [record | {"system": "你是医生。"} for record in chats(DIALOGUES["sharegpt"])]
    assert importer(importer.write("x.json", records)) == EXPECTED
    found = importer(importer.write("x.json", records), system="prefix")
    assert found == [["病人：你是医生。\n\n" + first.removeprefix("病人："), *rest] for first, *rest in EXPECTED]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"messages": rows([("a", "b")]), "instruction": "a", "output": "b"}], "choose --format openai (OpenAI"),
        ([*chats(DIALOGUES["openai"])[:2], {"prompt": "a", "completion": "b"}], "record 2: is question and answer, "),
        (chats(PREFERENCES["trl, plain"]), "these are preferences (TRL, "),
        ([{"prompt": "a", "completion": "b", "label": True}], "single answers marked good or bad (KTO)"),
        ([{"chosen": "a", "rejected": "b"}], "chosen and rejected texts without the question (`prompt`)"),
        ([{"text": "a"}], "no known format: its first record has the keys text; docs/data.md lists the formats"),
        ([7], "no known format: its first record is a int"),
        ([], "has no record"),
        (chats(DIALOGUES["openai"])[:2], "2 different dialogues are too few"),
        ([{"messages": [{"role": "tool", "content": "x"}]}], "nothing is left to import"),
        ([{"conversations": [], "tools": "[]"}], "nothing is left to import"),
    ],
)  # fmt: skip
def test_what_can_not_be_imported_is_refused_in_one_line(importer, capsys, records, message):
    assert message in importer.refusal(capsys, importer.write("x.json", records))


def test_an_ambiguous_file_is_read_as_it_is_told(importer):
    records = [alpaca(turns) | {"messages": rows(turns)} for turns in chats(lambda turns: turns)]
    source = importer.write("x.json", records)
    assert importer(source, form="openai") == importer(source, form="alpaca") == EXPECTED


def test_other_mistakes(importer, capsys, tmp_path):
    source = importer.write("x.json", chats(DIALOGUES["openai"]))
    assert "no format `chatml`; there are: openai, sharegpt" in importer.refusal(capsys, source, form="chatml")
    assert "no such file or folder, and no id" in importer.refusal(capsys, str(tmp_path / "absent.json"))
    few = importer.write("few.json", chats(DIALOGUES["openai"])[:4])
    assert "4 different dialogues 2 for validation and 2 for the test leave none" in importer.refusal(
        capsys, few, validate=0.4, test=0.4
    )
    assert "one or two questions are too few" in importer.refusal(
        capsys, source, preferences=importer.write("p.json", chats(PREFERENCES["trl, plain"])[:2])
    )
    assert "these are dialogues" in importer.refusal(capsys, source, preferences=source)
    assert "there is no profile" in importer.refusal(capsys, source, like="absent")
    (tmp_path / "x.csv").write_text("prompt,completion\na\n")
    assert "x.csv, line 2: has not as many cells" in importer.refusal(capsys, str(tmp_path / "x.csv"))
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    assert "x.parquet: can't be read: " in importer.refusal(capsys, str(tmp_path / "x.parquet"))
    (tmp_path / "empty").mkdir()
    assert "empty: can't be read: " in importer.refusal(capsys, str(tmp_path / "empty"))
    for name, message in (("sample", "belongs to the project"), ("../x", "must be of letters"), ("x" * 61, "letters")):
        with pytest.raises(SystemExit):
            import_data.main(source, name=name, data=tmp_path / "data", profiles=tmp_path)
        assert message in capsys.readouterr().err
    importer(source)
    with pytest.raises(SystemExit):
        import_data.main(source, name="mine", data=tmp_path / "data", profiles=tmp_path)
    assert "data/mine: exists; name another with --name, or add --replace" in capsys.readouterr().err


def test_only_an_import_is_replaced(importer, capsys, tmp_path):
    source = importer.write("x.json", chats(DIALOGUES["openai"]))
    importer(source)

    def refused(name):
        with pytest.raises(SystemExit):
            importer(source)
        assert f"{name}: exists, and no import wrote it" in capsys.readouterr().err
        assert (tmp_path / "data/mine/train_data.json").is_file()

    own = tmp_path / "data/mine/notes.txt"
    own.write_text("mine")
    refused("notes.txt")
    own.unlink()
    (tmp_path / "mine.yaml").write_text("model: {}\n")
    refused("mine.yaml")
    (tmp_path / "mine.yaml").unlink()
    (tmp_path / "data/mine/.gitignore").unlink()
    refused("data/mine")


def test_the_profile_has_the_prefixes_that_the_import_writes(importer, tmp_path):
    (tmp_path / "english.yaml").write_text("data: {patient_prefix: 'Patient: ', doctor_prefix: 'Doctor: '}\n")
    importer(importer.write("x.json", chats(DIALOGUES["openai"])), like="english")
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text())["data"]
    assert importer.parts()["train"][0][0].startswith(written["patient_prefix"])
    assert importer.parts()["train"][0][1].startswith(written["doctor_prefix"])


@pytest.mark.parametrize("text", ["data:\n", "[1]\n", "data: {\n"])
def test_a_broken_profile_is_one_line(importer, capsys, tmp_path, text):
    (tmp_path / "broken.yaml").write_text(text)
    source = importer.write("x.json", chats(DIALOGUES["openai"]))
    assert "broken.yaml: " in importer.refusal(capsys, source, like="broken")


def test_the_parts_hold_whole_dialogues_and_no_question_twice(importer):
    same = [{"instruction": f"问{i % 20}", "output": f"答{i}"} for i in range(40)]
    importer(importer.write("x.json", same))
    questions = {part: {dialogue[0] for dialogue in dialogues} for part, dialogues in importer.parts().items()}
    assert {part: len(found) for part, found in questions.items()} == {"train": 16, "validate": 2, "test": 2}
    assert len(set.union(*questions.values())) == 20
    before = importer.parts()
    importer(importer.write("x.json", same))
    assert importer.parts() == before
    importer(importer.write("x.json", same), seed=1)
    assert importer.parts() != before


def test_what_is_printed_can_not_move_the_cursor(importer, capsys):
    importer(
        importer.write(
            "x\x1b[2J.json", [{"instruction": f"\x1b]0;{i}\x07\u202e", "output": "a\r\x9b"} for i in range(9)]
        )
    )
    printed = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in printed)


def test_the_profile_goes_on_through_the_project(importer, capsys, tmp_path):
    """`make profile` takes it, and `preprocess` takes the data: no answer is dropped and nothing cut out of one."""
    from stages import profile

    source = importer.write("chats.json", chats(DIALOGUES["openai"]))
    importer(source, preferences=importer.write("p.json", chats(PREFERENCES["trl, conversational"])), like="smallest")
    assert capsys.readouterr().out.endswith("next: make profile NAME=mine && make repro\n")
    written = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    smallest = yaml.safe_load((ROOT / "profiles" / "smallest.yaml").read_text())
    assert {key: value for key, value in written.items() if key != "data"} == smallest
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path / "default.yaml")
    profile.main("mine", tmp_path, tmp_path / "params.yaml")
    preprocess.main(tmp_path / "out", tmp_path / "log", tmp_path / "params.yaml")
    counts = json.loads((tmp_path / "log" / "metrics.json").read_text())
    assert sum(counts[part]["samples"] for part in ("train", "validate", "test")) == 2 * COUNT
    assert counts["preferences"]["pairs"] == COUNT


def test_without_preferences_it_says_what_can_run(importer, capsys):
    importer(importer.write("chats.json", chats(DIALOGUES["openai"])))
    assert importer.preferences() == []
    assert "next: make profile NAME=mine && make sft-only" in capsys.readouterr().out
