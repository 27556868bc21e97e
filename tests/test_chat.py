"""The chat: piped questions, a conversation through a pseudo-terminal, and the stacks behind the names."""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import imports
import pytest
import tiny_models
import torch
import yaml

from stages import chat
from stages.generation.generate import eos_ids, generate
from stages.models import base_model, stack
from stages.predict import PredictConfig
from stages.runtime import params
from stages.runtime.errors import UserError
from stages.serving import chat_models, conversation, interrupts, model_names, repl, streaming, terminal
from stages.serving.model_names import Name
from stages.text import encoding

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
QUESTIONS = ["我发烧三天了", "需要做核酸检测吗？"]


class Files:
    def __init__(self, folder: Path):
        self.base, self.sft, self.rm = tiny_models.write(folder)
        self.ppo = folder / "ppo"
        tiny_models.write_adapter(self.ppo, "ppo", self.base, below=[self.sft], seed=3)
        self.params = folder / "params.yaml"
        self.write_params(max_new_tokens=12)

    def write_params(self, **changes):
        document = yaml.safe_load((imports.ROOT / "params.yaml").read_text())
        document["predict"] |= changes
        self.params.write_text(yaml.safe_dump(document))

    def options(self):
        names = ("base", "sft", "ppo", "params")
        return [word for name in names for word in (f"--{name}", str(getattr(self, name)))]

    def arguments(self):
        return {"base": self.base, "sft": self.sft, "ppo": self.ppo, "params_file": self.params}

    def config(self):
        return params.load(self.params, "predict", PredictConfig)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("chat"))


def predicted(files, name, history, question, key):
    """The answer by the way of `predict`: the stack on its own, batches, no streaming."""
    origin = base_model.read(files.base)
    tokenizer, config = origin.tokenizer(), files.config()
    model = stack.load(origin.causal_lm(), model_names.resolve(name, origin, files.sft, files.ppo))
    ids = encoding.encode_prompt(tokenizer, history, question, config.max_source_length, "predict").ids
    with stack.merged(model):
        [(_, answer)] = generate(
            model, [ids], [key], config, config.max_new_tokens, 1, eos_ids(model, tokenizer), tokenizer.pad_token_id
        )
    return tokenizer.decode(answer.ids, skip_special_tokens=True).strip()


def piped(monkeypatch, capsys, text, **arguments):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    chat.main(**arguments)
    sys.stdout.seek(0)
    return [json.loads(line) for line in sys.stdout]


def test_piped_questions_get_the_answers_of_predict(files, monkeypatch, capsys):
    text = f"{QUESTIONS[0]}\n\n  {QUESTIONS[1]}"
    rows = piped(monkeypatch, capsys, text, model=Name.sft, compare=True, other=Name.ppo, **files.arguments())
    assert [(row["model"], row["instruction"]) for row in rows] == [(n, q) for q in QUESTIONS for n in ("sft", "ppo")]
    seed = params.load(files.params, "seed", int)
    assert [row["predict"] for row in rows] == [
        predicted(files, name, [], question, f"{seed}/{i}")
        for i, question in enumerate(QUESTIONS)
        for name in (Name.sft, Name.ppo)
    ]
    assert "no medical advice" in capsys.readouterr().err


def test_stacks_on_one_base_answer_as_each_alone_and_with_history(files):
    origin = base_model.read(files.base)
    config = files.config()
    for merge in (True, False):
        with chat_models.ChatModels(origin, None, merge) as chatting:
            for name in Name:
                chatting.add(name, model_names.resolve(name, origin, files.sft, files.ppo))
            said = {}
            history = [["医生您好", "您好"]]
            for name in (Name.ppo, Name.base, Name.sft, Name.base, Name.ppo):
                pieces: list[str] = []
                reply = chatting.answer(
                    name,
                    history,
                    QUESTIONS[0],
                    "k",
                    config,
                    config.max_source_length,
                    config.max_new_tokens,
                    pieces.append,
                )
                assert "".join(pieces) == reply.text == predicted(files, name, history, QUESTIONS[0], "k")
                assert said.setdefault(name, reply.text) == reply.text
            assert len(set(said.values())) == 3


def test_text_is_streamed_whole_characters_at_a_time(files):
    tokenizer = base_model.read(files.base).tokenizer()
    ids = tokenizer.encode("  体温？\n多少  ", add_special_tokens=False)
    pieces: list[str] = []
    streamer = streaming.AnswerStreamer(tokenizer, pieces.append)
    streamer.put(torch.tensor([ids]))  # the prompt
    for token in [*ids, tokenizer.eos_token_id]:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert "".join(pieces) == "体温？\n多少"
    assert len(pieces) > 3
    assert not any("\ufffd" in piece for piece in pieces)


def test_each_stack_goes_on_from_its_own_answers():
    talk = conversation.Conversation()
    talk.add("q1", {"sft": "s1"})
    talk.add("q2", {"sft": "s2", "ppo": "p2"})
    talk.add("stopped before a word", {})
    assert talk.history("ppo") == [["q1", "s1"], ["q2", "p2"]]
    assert talk.history("sft") == [["q1", "s1"], ["q2", "s2"]]


def test_mistakes_are_one_line(files, monkeypatch, capsys):
    for arguments, message in [
        ({"other": Name.sft}, "`--model sft` chooses it"),
        ({"compare": True, "other": Name.ppo}, "--compare needs another model than ppo"),
        ({"ppo": files.sft.with_name("absent")}, "no such file"),
    ]:
        with pytest.raises(SystemExit):
            chat.main(**(files.arguments() | arguments))
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1
    monkeypatch.setenv("COVID_DOCTOR_TRACEBACK", "1")
    other = files.base.with_name("other")
    tiny_models.write_base(other, seed=9)
    with pytest.raises(UserError, match="was trained on base"):
        chat.main(**(files.arguments() | {"base": other}))


# --- commands and interrupts, without a terminal ---


def test_ctrl_c_waits_where_it_would_do_harm():
    done = []

    def work():
        with interrupts.postponed():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            done.append("to the end")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["to the end"]


def test_ctrl_c_during_a_change_of_model_and_a_failed_save_lead_back_to_the_prompt(
    files, tmp_path, monkeypatch, capsys
):
    files.write_params(max_new_tokens=12)
    origin, config = base_model.read(files.base), files.config()
    really_load, interrupted = stack.load, []

    def load(model, folders):
        if not interrupted:
            interrupted.append(folders)
            os.kill(os.getpid(), signal.SIGINT)
        return really_load(model, folders)

    monkeypatch.setattr(stack, "load", load)
    (tmp_path / "file").write_text("")
    nowhere, talk = tmp_path / "file" / "talk.json", tmp_path / "talk.json"
    typed = iter(["/model sft", f"/save {nowhere}", "/model sft", QUESTIONS[0], f"/save {talk}", "/quit"])
    monkeypatch.setattr(terminal, "reader", lambda prompt: lambda: next(typed))

    def folders(name):
        return model_names.resolve(name, origin, files.sft, files.ppo)

    with chat_models.ChatModels(origin, None, config.merge_adapters) as chatting:
        chatting.add(Name.base, folders(Name.base))

        def ask(name, history, question, number, show):
            return chatting.answer(name, history, question, str(number), config, 256, config.max_new_tokens, show)

        repl.Repl(chatting, [Name.base], folders, ask, "notice").run()
    shown = capsys.readouterr().out
    assert "[stopped]" in shown and f"error: {nowhere} can't be written" in shown and shown.count("(sft)") == 1
    [each] = json.loads(talk.read_text())["turns"]
    assert each["answers"] == {"sft": predicted(files, Name.sft, [], QUESTIONS[0], "0")}


# --- the terminal ---


# A program that a shell started in the background ignores SIGINT, and so do its children: a terminal's would not.
CONTROLLED = (
    "import fcntl, os, signal, sys, termios; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)


ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[=>])")  # what moves the cursor, colours and hides


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, command, cwd):
        self.main, child = pty.openpty()
        environment = os.environ | {"TERM": "xterm", "PYTHONPATH": str(imports.ROOT), "OMP_NUM_THREADS": "1"}
        environment["PROMPT_TOOLKIT_NO_CPR"] = "1"  # nobody answers where the cursor is
        # The terminal must be the program's controlling one for Ctrl-C to become a signal.
        own_terminal = [sys.executable, "-c", CONTROLLED, *command]
        self.process = subprocess.Popen(
            own_terminal, stdin=child, stdout=child, stderr=child, cwd=cwd, env=environment, start_new_session=True
        )
        os.close(child)
        self.seen = ""
        self.raw = b""

    def type(self, text):
        self.seen, self.raw = "", b""
        os.write(self.main, text.encode())

    def expect(self, text, seconds=60):
        """Read until `text` was printed since the last `type` or `expect`; give what came before it."""
        self.read_until(lambda: text in self.seen, repr(text), seconds)
        before, _, self.seen = self.seen.partition(text)
        self.raw = self.seen.encode()
        return before

    def read_until(self, done, what, seconds=60):
        end = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < end, f"no {what} in {self.seen!r}"
            if select.select([self.main], [], [], 0.1)[0]:
                try:
                    self.raw += os.read(self.main, 4096)
                except OSError:
                    raise AssertionError(f"the program ended before {what}: {self.seen!r}") from None
                self.seen = ESCAPES.sub("", self.raw.decode(errors="ignore")).replace("\r", "")

    def close(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self.main)


def test_a_conversation_at_a_terminal(files, tmp_path):
    files.write_params(max_new_tokens=12)
    at = Terminal([sys.executable, "-W", "error", "-m", "stages.chat", *files.options()], tmp_path)
    try:
        assert "no medical advice" in at.expect("\n>")
        at.type("你好<|im_end|>\r")
        at.expect("ppo: ")
        at.expect("\n>")
        at.type("\x1b[200~line one\nline two\x1b[201~\r")  # a terminal that marks a paste
        at.expect("ppo: ")
        at.expect("\n>")
        at.type("line three\rline four\r")  # one that does not
        at.expect("ppo: ")
        at.expect("\n>")
        at.type("/model sft base\r")
        at.expect("(sft and base)")
        at.expect("\n>")
        at.type("问题\r")
        at.expect("sft: ")
        at.expect("base: ")
        at.expect("\n>")
        os.write(at.main, b"\xff\xfe?\r")  # no UTF-8
        at.expect("sft: ")
        at.expect("base: ")
        at.expect("\n>")
        at.type("/save ~nobody-of-this-name/talk.json\r")
        at.expect("error: ~nobody-of-this-name/talk.json can't be written: ")
        at.type("/model \x1b]0;owned\x07\r")
        at.expect("error: /model takes")
        at.type("/model gpt\r")
        at.expect("error: /model takes one or two of base, sft, ppo")
        at.type("/save talk.json\r")
        at.expect("(5 turns written to talk.json)")
        at.type("/save talk.json\r")
        at.expect("error: talk.json exists already")
        at.type("/clear\r")
        at.expect("(forgotten)")
        at.type("/save empty.json\r")
        at.expect("(0 turns written")
        at.expect("\n>")
        at.type("\x03")
        at.expect("/quit leaves")
        at.expect("\n>")
        at.type("\x04")
        assert at.process.wait(20) == 0
    finally:
        at.close()
    turns = json.loads((tmp_path / "talk.json").read_text())["turns"]
    assert [each["question"] for each in turns] == [
        "你好<|im_end|>",
        "line one\nline two",
        "line three\nline four",
        "问题",
        "\ufffd\ufffd?",
    ]
    assert [list(each["answers"]) for each in turns[:4]] == [["ppo"], ["ppo"], ["ppo"], ["sft", "base"]]
    seed = params.load(files.params, "seed", int)
    history = [[each["question"], each["answers"]["ppo"]] for each in turns[:3]]
    assert turns[0]["answers"]["ppo"] == predicted(files, Name.ppo, [], turns[0]["question"], f"{seed}/0")
    assert turns[2]["answers"]["ppo"] == predicted(files, Name.ppo, history[:2], turns[2]["question"], f"{seed}/2")
    assert turns[3]["answers"]["base"] == predicted(files, Name.base, history, "问题", f"{seed}/3")


def test_ctrl_c_stops_an_answer_and_not_the_program(files, tmp_path):
    files.write_params(max_new_tokens=100_000, do_sample=False)
    at = Terminal([sys.executable, "-m", "stages.chat", *files.options(), "--model", "sft"], tmp_path)
    try:
        at.expect("\n>")
        at.type("你好\r")
        at.expect("sft: ")
        at.read_until(lambda: len(at.seen) > 2, "some text, and much more would follow")
        at.type("\x03")
        at.expect("[stopped]")
        at.expect("\n>")
        at.type("/save talk.json\r")
        at.expect("(1 turn written")
        at.type("/quit\r")
        assert at.process.wait(20) == 0
    finally:
        at.close()
    [each] = json.loads((tmp_path / "talk.json").read_text())["turns"]
    assert each["answers"]["sft"]
