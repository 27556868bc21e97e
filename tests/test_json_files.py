"""Hostile JSON: what is wrong is one line that names file and place; what is right is read whole."""

import pytest

from stages.runtime.errors import UserError
from stages.text import json_files, records

WRONG = {
    b"": "x.json: is empty",
    b" \n\t": "x.json: is empty",
    b"[1,]": "x.json, record 1: not JSON: Expecting value",
    b"[1 2]": "x.json, line 1: expected `,` or `]` after record 0, found '2]'",
    b'["a"': "x.json, line 1: expected `,` or `]` after record 0, found the end of the file",
    b'["a"] x': "x.json, line 1: expected nothing after the list, found 'x'",
    b"[" * 100_000: "x.json, record 0: nested too deeply",
    b'{"a":' * 100_000: "x.json, line 1: nested too deeply",
    b'[0, {"a": 1, "a": 2}]': 'x.json, record 1: the key "a" appears twice in one object',
    b'{"a": 1}\n{"a": 1, "a": 2}': 'x.json, line 2: the key "a" appears twice in one object',
    b"[NaN]": "x.json, record 0: NaN is no JSON number",
    b"[1e999]": "x.json, record 0: 1e999 is no JSON number",
    b"[" + b"9" * 5000 + b"]": "x.json, record 0: a number of too many digits",
    rb'["a", "\ud800"]': r"x.json, record 1: a text with half a character, \\ud800; write it whole",
    rb'{"\udfff": 1}': r"x.json, line 1: a text with half a character, \\udfff",
    b'["\xed\xa0\x80"]': "x.json, line 1: not UTF-8 .byte 2.; if it is in GB18030",
    b'["a",\n"\xff"]': "x.json, line 2: not UTF-8",
    '["发烧"]'.encode("gb18030"): "x.json, line 1: not UTF-8 .byte 2.; if it is in GB18030, .*iconv -f GB18030",
    '["a"]'.encode("utf-16"): "x.json: is in UTF-16; convert it: `iconv -f UTF-16 -t UTF-8`",
    b'{\n"data": [1]\n}\n': "x.json: one object .keys: data., not a list",
    b'{"a": 1} {"b": 2}': "x.json, line 1: not JSON: more text behind the record",
    b"\x00": "x.json, line 1: not JSON",
}


@pytest.mark.parametrize(("content", "message"), WRONG.items(), ids=range(len(WRONG)))
def test_what_is_wrong_is_one_line_with_the_place(tmp_path, content, message):
    file = tmp_path / "x.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        json_files.read_records(file)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ("[]", []),
        ('\ufeff["a"]', ["a"]),
        ('["a\u2028b\u2029c\x85"]', ["a\u2028b\u2029c\x85"]),
        ('{"a": "\u2028"}\n\n{"a": "\x85"}\n', [{"a": "\u2028"}, {"a": "\x85"}]),
        (r'["\ud83e\udd12"]', ["🤒"]),
        ("[[1, 2],\n[3]]", [[1, 2], [3]]),
        ('["a"]\n["b"]\n', [["a"], ["b"]]),
        (' [\r\n"a"\r\n]\r\n', ["a"]),
    ],
)
def test_what_is_right_is_read_whole(tmp_path, content, values):
    file = tmp_path / "x.json"
    file.write_bytes(content.encode())
    assert [value for _, value in json_files.read_records(file)] == values


def test_places_are_counted_as_editors_do(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": "\u2028"}\n\n{"a": 1}\n')
    assert [place for place, _ in json_files.read_records(file)] == ["line 1", "line 3"]


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="is a folder, not a file"):
        json_files.read_text(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        json_files.read_text(tmp_path / "absent")
    with pytest.raises(UserError, match="File name too long"):
        json_files.read_text(tmp_path / ("x" * 300))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"history": null, "instruction": "a", "output": "b"}', "line 1: expected texts, and a list of"),
        ('{"history": [["a"]], "instruction": "a", "output": "b"}', "line 1: expected texts"),
        ('{"history": [], "instruction": 1, "output": "b"}', "line 1: expected texts"),
        ('{"instruction": "a"}', "line 1: expected an object with the keys history, instruction, output"),
        ("[]", "line 1: expected an object"),
        ('{"history": []', "line 1: not JSON"),
    ],
)
def test_a_damaged_sample_is_named(tmp_path, line, message):
    file = tmp_path / "test.jsonl"
    file.write_text(line)
    with pytest.raises(UserError, match=message):
        records.read_samples(file)


def test_no_preferences_say_what_can_run_without(tmp_path):
    file = tmp_path / "preferences_train.jsonl"
    file.write_text("")
    with pytest.raises(UserError, match=r"no preferences, .*`make sft-only`"):
        records.read_pairs(file)
