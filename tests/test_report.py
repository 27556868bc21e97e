"""The report: numbers by hand, errors that name their file, the same bytes twice, and the page in a real browser."""

import csv
import fcntl
import json
import math
import os
import random
import select
import shutil
import signal
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stages.metrics import bootstrap
from stages.page import comparison, health, i18n, inputs, reward_model, smoothing, verdict
from stages.report import main

PAGE = Path(i18n.__file__).parent
HOSTILE = "</script><script>window.injected = 1</script><img src=x onerror='window.injected = 2'> & <!-- \u2028 \ud83d"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


# ----------------------------------------------------------------------------------------------------------------------
# A run that never was


def write_run(root: Path, count: int = 40, updates: int = 60, pairs: int = 80) -> dict[str, Path]:
    """What the other stages would leave for `count` test questions, where SFT helps and PPO lengthens."""
    draw = random.Random(7)
    letters = "发热咳嗽三天体温三十八度建议多喝水注意休息观察如果加重及时到医院就诊不用太担心"

    def text(size: float) -> str:
        return "".join(draw.choice(letters) for _ in range(max(1, int(size)))) + "。"

    history: list[list[str]] = []
    questions = []
    for index in range(count):
        history = [] if index % 4 == 0 else [*history, [questions[-1][1], questions[-1][2]]]
        questions.append((history, text(draw.uniform(8, 80)), text(draw.uniform(6, 60))))
    questions[3] = (questions[3][0], HOSTILE, questions[3][2])
    sizes, rouge = {"base": 120, "sft": 17, "ppo": 28}, {"base": 6, "sft": 14, "ppo": 14.5}
    rewards: list[dict[str, float]] = [{} for _ in questions]
    for model in inputs.MODELS:
        answers, scores = [], []
        for index, (rounds, question, label) in enumerate(questions):
            predict = "" if index == 5 and model == "base" else text(draw.gauss(sizes[model], sizes[model] / 4))
            predict = HOSTILE + model if index == 3 else predict
            answers.append({"history": rounds, "instruction": question, "label": label, "predict": predict})
            value = max(0.0, (draw.gauss(0, 3) + rouge[model]))
            scores.append(
                {"rouge-1": value * 1.2, "rouge-2": value / 5, "rouge-l": value, "bleu-4": value / 3}
                | {"response_length": len(predict), "response_tokens": len(predict), "eos": model != "base"}
            )
            rewards[index][model] = round(draw.gauss({"base": -1, "sft": 0, "ppo": 0.8}[model], 0.5), 4)
        put(root / f"predictions/{model}.jsonl", answers)
        put(root / f"scores/{model}.jsonl", scores)
        means = {key: sum(row[key] for row in scores) / count for key in scores[0]}
        means = {"eos_rate" if key == "eos" else key: value for key, value in means.items()} | {"distinct-2": 12.5}
        ends = {key: {"low": value - 0.5, "high": value + 0.5} for key, value in means.items()}
        put(root / f"metrics/{model}.json", means | {"samples": count, "ci95": ends})
    put(root / "scores/reward.jsonl", rewards)
    means = {model: sum(row[model] for row in rewards) / count for model in inputs.MODELS}
    ends = {model: {"low": value - 0.1, "high": value + 0.1} for model, value in means.items()}
    put(root / "metrics/reward.json", means | {"ci95": ends})
    held_out = []
    for _ in range(pairs):
        better, worse = draw.randint(5, 60), draw.randint(5, 60)
        scores_of = {"chosen": draw.gauss(1, 1), "rejected": draw.gauss(-0.3, 1)}
        held_out.append(scores_of | {"chosen_length": better, "rejected_length": worse})
    put(root / "scores/rm.jsonl", held_out)
    for name in inputs.DOCUMENTS:
        document = {"nested": {name: HOSTILE, "sha256": "ab" * 32}, "count": 3}
        put(root / f"metrics/{name}.json", document | measured(name))
    for name, columns in inputs.CURVES.items():
        rows = updates if not name.endswith("_eval") else 8
        lines = [",".join(columns)]
        for step in range(1, rows + 1):
            part = step / rows
            known = {"step": step, "epoch": 3 * part, "eos_rate": 0.95, "ratio": 1.0, "repetition": 0.02}
            known |= {"score": -0.5 + part, "kl": 4 * part, "entropy": 2.5 - part, "response_length": 17 + 11 * part}
            lines.append(",".join(f"{known.get(c, 3 - 2 * part + draw.gauss(0, 0.1)):.6g}" for c in columns))
        (root / "curves").mkdir(exist_ok=True)
        (root / f"curves/{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    params = "seed: 42\nmodel: {name: tiny}\ndata: {dialogues: '<b>sample', preferences: data/pairs.json}\n"
    params += "report: {smoothing: true, bootstrap_samples: 200, language: en}\nsft: {learning_rate: %s}\n"
    (root / "params.yaml").write_text(params % "1.0e-3", encoding="utf-8")
    (root / "defaults.yaml").write_text(params % "5.0e-5", encoding="utf-8")
    return {
        **{name: root / name for name in ("predictions", "scores", "metrics", "curves")},
        "page": root / "index.html",
        "summary": root / "summary.md",
        "headline": root / "metrics.json",
        "plots": root / "plots",
        "config": root / "params.yaml",
        "defaults": root / "defaults.yaml",
    }


def measured(document: str) -> dict[str, Any]:
    """What the report reads from a training stage's metrics; the sft stage of this run measured nothing."""
    return {
        "train_base": {"eval_loss": 1.25},
        "train_rm": {"eval_loss": 1.25, "eval_accuracy": 0.75},
        "train_ppo": {"last": {"score": 0.5, "entropy": 1.0}},
    }.get(document, {})


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = value if isinstance(value, list) else [value]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole run with its report written."""
    found = write_run(tmp_path_factory.mktemp("run"))
    main(**found)
    return found


# ----------------------------------------------------------------------------------------------------------------------
# Numbers


def test_smoothing_is_the_tutorials():
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * 3)) - 0.5)
    second = weight * 4 + (1 - weight) * 2
    assert smoothing.smooth([4.0, 2.0, None]) == [4.0, pytest.approx(second), None]
    assert smoothing.ends([None, *map(float, range(20))]) == (0.5, 18.5)
    assert smoothing.ends([None]) is None


def test_a_reward_model_that_counts_characters_is_found_out():
    lengths = [(30, 10)] * 60 + [(10, 30)] * 30 + [(20, 20), (20, 19)] * 20
    pairs = {
        "chosen": [float(chosen) for chosen, _ in lengths],
        "rejected": [float(rejected) for _, rejected in lengths],
        "chosen_length": [float(chosen) for chosen, _ in lengths],
        "rejected_length": [float(rejected) for _, rejected in lengths],
    }
    found = reward_model.measure(pairs)
    shares = {name: (group.pairs, group.accuracy.value) for name, group in found.groups.items()}
    assert shares["longer"] == (60, 1.0) and shares["shorter"] == (30, 0.0) and shares["similar"] == (40, 0.5)
    assert found.reads.value == pytest.approx(20 / 70) and found.reads.low < 0.5
    assert found.length_correlation == pytest.approx(1)
    assert [band.group.pairs for band in found.bins] == [26] * 5
    # Wilson's interval of 9 right out of 10, from his formula
    assert reward_model.wilson(9, 10)[1:] == pytest.approx((0.5958, 0.9821), abs=1e-4)


def test_repetition_is_the_share_of_four_grams_said_before():
    assert comparison.repetition("甲乙丙丁甲乙丙丁") == pytest.approx(1 / 5)
    assert comparison.repetition("好好好好好") == pytest.approx(1 / 2)
    assert comparison.repetition("好") == comparison.repetition("") == 0


@pytest.mark.parametrize(
    ("metric", "change", "short"),
    [
        ("rouge-1", (-2.0, -3.0, -1.0), "Longer, but at a cost: ROUGE-1 fell by 2.0."),
        ("rouge-1", (-2.0, -4.1, 0.1), "Yes: longer, and at no cost that counts."),  # may be chance
        ("repetition", (0.3, 0.1, 0.7), "Yes: longer, and at no cost that counts."),  # larger than chance, and tiny
        ("repetition", (4.0, 2.0, 6.0), "Longer, but at a cost: repetition rose by 4.0 points."),
        ("eos_rate", (-8.0, -9.0, -7.0), "Longer, but at a cost: answers that end by themselves fell by 8.0 points."),
        ("response_length", (1.0, -1.0, 3.0), "No: the answers did not get longer."),
    ],
)
def test_a_cost_of_ppo_is_larger_than_chance_and_than_a_point(options, metric, change, short):
    run = inputs.read(*(options[name] for name in ("predictions", "scores", "metrics", "curves", "config")))
    compared = comparison.compare(run, 100, 1)
    still = dict.fromkeys(("rouge-1", "rouge-l", "repetition", "eos_rate"), bootstrap.Interval(0.0, -1.0, 1.0))
    compared.differences["sft", "ppo"].update(still | {"response_length": bootstrap.Interval(9.0, 8.0, 10.0)})
    compared.differences["sft", "ppo"][metric] = bootstrap.Interval(*change)
    found = verdict.answers(run, compared, reward_model.measure(run.pairs), [])[1]
    assert i18n.say(found.short, "en") == short
    assert "at least 1 point of 100: in ROUGE-1, ROUGE-L" in " ".join(i18n.say(each, "en") for each in found.because)


# ----------------------------------------------------------------------------------------------------------------------
# Health


def between(start, end):
    """A curve of 20 values whose first tenth is `start` and whose last tenth is `end`."""
    return [start, start, *(start + (end - start) * i / 15 for i in range(16)), end, end]


def healthy_run(options):
    run = inputs.read(*(options[name] for name in ("predictions", "scores", "metrics", "curves", "config")))
    ppo = {"score": (0, 1), "kl": (0, 4), "entropy": (2, 1.5), "length_score_correlation": (0, 0), "ratio": (1, 1)}
    ppo |= {"eos_rate": (0.9, 0.9), "repetition": (0.02, 0.02), "clip_fraction": (0.1, 0.1)}
    ppo |= {"explained_variance": (0, 0.5)}
    columns = {"ppo": ppo, "base": {}, "sft": {}, "rm": {}, "sft_eval": {}, "rm_eval": {}}
    curves = {}
    for curve, known in columns.items():
        known = {"step": (1, 20), "loss": (2, 1), "eval_loss": (2, 1)} | known
        curves[curve] = {column: between(*ends) for column, ends in known.items()}
    return run._replace(curves=curves)


def unhealthy(run, low=0.6):
    """The checks that were made, and those of them that found something wrong."""
    accuracy = reward_model.Group("all", 100, bootstrap.Interval(0.7, low, 0.8))
    model = reward_model.RewardModel({"all": accuracy}, bootstrap.Interval(0.7, 0.6, 0.8), [], [], None)
    made = health.checks(run, model)
    return [check.name for check in made], [check.name for check in made if not check.healthy]


@pytest.mark.parametrize(
    ("check", "curve", "column", "good", "bad"),
    [
        ("sft_falls", "sft", "loss", (2, 1.99), (2, 2)),
        ("sft_overfit", "sft_eval", "eval_loss", (1, 1.04), (1, 1.06)),
        ("rm_falls", "rm", "loss", (2, 1.99), (2, 2)),
        ("rm_overfit", "rm_eval", "eval_loss", (1, 1.04), (1, 1.06)),
        ("reward", "ppo", "score", (-1, -0.99), (-1, -1)),
        ("kl", "ppo", "kl", (1, -0.04), (1, -0.06)),
        ("entropy", "ppo", "entropy", (2, 0.81), (2, 0.79)),
        ("eos", "ppo", "eos_rate", (0.9, 0.86), (0.9, 0.84)),
        ("repetition", "ppo", "repetition", (0.02, 0.06), (0.02, 0.08)),
        ("length_bound", "ppo", "length_score_correlation", (0.9, 0.79), (0, 0.81)),
        ("length_bound", "ppo", "length_score_correlation", (0, -0.79), (0, -0.81)),
        ("clip", "ppo", "clip_fraction", (0.1, 0.48), (0.1, 0.52)),  # the mean counts
        ("ratio", "ppo", "ratio", (1, 1.18), (1, 1.22)),
        ("ratio", "ppo", "ratio", (1, 0.82), (1, 0.78)),
        ("value", "ppo", "explained_variance", (-1, 0.01), (1, 0)),
    ],
)
def test_a_check_looks_at_its_curve_and_no_other(options, check, curve, column, good, bad):
    run = healthy_run(options)
    run.curves[curve][column] = between(*good)
    assert unhealthy(run)[1] == []
    run.curves[curve][column] = between(*bad)
    assert unhealthy(run)[1] == [check]
    run.curves[curve][column] = [None] * 20  # nothing known, nothing said
    assert check not in unhealthy(run)[0]


@pytest.mark.parametrize("curve", ["base", "sft", "rm", "ppo"])
def test_a_gap_in_a_loss_is_unhealthy(options, curve):
    run = healthy_run(options)
    assert len(unhealthy(run)[0]) == 15
    run.curves[curve]["loss"][7] = None
    assert unhealthy(run)[1] == ["finite"]


def test_a_reward_model_must_be_above_chance_for_sure(options):
    run = healthy_run(options)
    assert unhealthy(run, low=0.51)[1] == []
    assert unhealthy(run, low=0.5)[1] == ["rm_accuracy"]


# ----------------------------------------------------------------------------------------------------------------------
# Words and files


def test_each_sentence_says_the_same_in_both_languages():
    for key, texts in i18n.dictionary().items():
        fields = [{name for _, name, _, _ in string.Formatter().parse(texts[lang]) if name} for lang in ("en", "zh")]
        assert set(texts) == {"en", "zh"} and fields[0] == fields[1], key


def test_same_inputs_same_bytes(options, tmp_path):
    names = ("page", "summary", "headline", "plots")
    again = options | {name: tmp_path / options[name].name for name in names}
    main(**again)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [path.name for path in written] == [
        "index.html", "metrics.json", "losses.csv", "models.csv", "ppo.csv", "summary.md"
    ]  # fmt: skip
    for path in written:
        assert (tmp_path / path).read_bytes() == (options["page"].parent / path).read_bytes()


def test_summary_and_plot_tell_the_story(options):
    summary = options["summary"].read_text(encoding="utf-8")
    assert "SFT raised ROUGE-L from" in summary and "Over 60 updates the reward went from" in summary
    assert "| ROUGE-L | " in summary and "9.95 → 17.63" in summary and str(options["page"].parent) not in summary


def test_what_git_keeps_of_a_run(options):
    def table(name):
        with (options["plots"] / f"{name}.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    models = table("models")
    assert len(models) == 30 and all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in models)
    headline = json.loads(options["headline"].read_text(encoding="utf-8"))
    for row in models:
        assert headline[row["model"]][row["metric"]] == pytest.approx(float(row["value"]), rel=1e-5, abs=1e-4)
    assert headline["eval_loss"] == {"base": 1.25, "rm": 1.25}, "one that was not measured is left out"
    assert headline["reward_model"] == {"accuracy": 0.75}
    assert headline["rollouts"] == {"score": 0.5}
    losses = table("losses")
    assert len(losses) == sum(
        len(table_of(options, f"{stage}{part}")) for stage in ("base", "sft", "rm") for part in ("", "_eval")
    )
    assert losses[-1] == {"stage": "rm", "part": "eval", "step": "8"} | {
        "loss": table_of(options, "rm_eval")[-1]["eval_loss"]
    }
    assert table("ppo") == table_of(options, "ppo")


def table_of(options, curve):
    with (options["curves"] / f"{curve}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_page_escapes_data_asks_for_nothing_and_stays_small(tmp_path):
    options = write_run(tmp_path, count=410, updates=2375, pairs=1000)
    main(**options)
    html = options["page"].read_text(encoding="utf-8")
    assert len(html.encode()) < 6_000_000
    ours = html.split('<script type="text/plain" id="plotly">')[0]
    assert "<img" not in ours and "window.injected = 1</script>" not in ours
    assert str(tmp_path) not in html and 'src="http' not in ours and 'href="http' not in ours
    assert "<code>5e-05</code>" in ours and "<code>0.001</code>" in ours  # what differs from the default


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("scores/sft.jsonl", lambda text: text.replace("bleu-4", "bleu", 1), "line 1: key `bleu-4` is missing"),
        ("scores/ppo.jsonl", lambda text: text.split("\n", 1)[1], "39 lines for 40 test samples"),
        ("scores/reward.jsonl", lambda text: text.replace('"base": -', '"base": -Infinity, "x": ', 1), "finite number"),
        ("predictions/ppo.jsonl", lambda text: text.split("\n", 1)[1], "line 1: not the sample that base.jsonl has"),
        ("predictions/sft.jsonl", lambda text: text[:-20], "line 40: not JSON"),
        ("curves/ppo.csv", lambda text: text.replace("kl_k3", "k3"), "line 1: column `kl_k3` is missing"),
        ("curves/rm.csv", lambda text: text.replace("1,", "one,", 1), "`step` is no number"),
        ("metrics/lineage.json", None, "no such file"),
        ("params.yaml", lambda text: text.replace("en}", "fr}"), "`report.language` must be one of en, zh"),
    ],
)
def test_what_does_not_fit_is_one_line(options, tmp_path, capsys, path, change, message):
    root = tmp_path / "run"
    shutil.copytree(options["page"].parent, root)
    broken = root / path
    if change:
        broken.write_text(change(broken.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        broken.unlink()
    with pytest.raises(SystemExit):
        main(**{name: root / given.name for name, given in options.items()})
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and path in error and message in error


@pytest.mark.parametrize("stage", sorted(path.stem for path in PAGE.parents[1].glob("[!_]*.py")))
def test_help_is_quick(stage):
    """`--help` of a stage does no more than import it: nothing that takes seconds may come along."""
    code = f"import sys, stages.{stage}; print(*{{'torch', 'transformers', 'plotly'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=PAGE.parents[2], check=True, capture_output=True)
    assert done.stdout.split() == []


# ----------------------------------------------------------------------------------------------------------------------
# The page in a browser


class Browser:
    """Headless Chromium, spoken to in its DevTools protocol over two pipes."""

    def __init__(self, profile: Path) -> None:
        # above 9, so that neither is one of the numbers that the child's ends get
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pair in (os.pipe(), os.pipe()) for end in pair]
        self.pid = os.posix_spawn(
            str(CHROMIUM),
            [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
            + ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
            + ["--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}"],
            dict(os.environ),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[3], 4),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,
        )
        os.close(ends[0])
        os.close(ends[3])
        self.to, self.back = ends[1], ends[2]
        self.count, self.rest = 0, b""
        self.events: list[dict[str, Any]] = []
        self.session = None
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.count:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.back], [], [], 20)
            assert ready, "Chromium did not answer within 20 seconds"
            self.rest += os.read(self.back, 1 << 16)
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, address: str, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self.ask("Page.navigate", url="about:blank")
        self.ask("Page.navigate", url=address)
        self.run("new Promise(r => document.readyState === 'complete' ? r() : addEventListener('load', r))")

    def complaints(self) -> list[dict[str, Any]]:
        """Errors of the console, exceptions, what the page's policy blocked, and requests to anywhere."""
        wrong = []
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if (
                method == "Runtime.exceptionThrown"
                or (method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"))
                or (method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"))
                or (
                    method == "Network.requestWillBeSent" and params["request"]["url"].startswith(("http", "ws", "ftp"))
                )
            ):
                wrong.append(event)
        return wrong

    def close(self) -> None:
        os.close(self.to)
        os.close(self.back)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not CHROMIUM:
        pytest.skip("no Chromium: install the package `chromium` to test the page in a browser")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


SCROLL = """(async () => {
  document.querySelector('.deeper').open = true;
  for (const plot of document.querySelectorAll('.plot')) {
    plot.scrollIntoView({behavior: 'instant'});
    for (let i = 0; i < 100 && !plot.querySelector('.main-svg'); i++) await new Promise(r => setTimeout(r, 20));
  }
})()"""
PLOTS = """[...document.querySelectorAll('.plot')].map(p => [p.dataset.panel, p.querySelectorAll('.trace').length,
  document.getElementById(p.getAttribute('aria-labelledby')).innerText])"""
# Contrast of every text with the ground behind it, by the formula of WCAG 2; the worst one that is below 4.5
CONTRAST = """(() => {
  const light = c => { const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b; };
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const ground = e => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
    if (c[3] !== 0) return c.slice(0, 3); } return [255, 255, 255]; };
  let bad = [];
  for (const e of document.querySelectorAll('body *')) {
    if (!e.checkVisibility() || e.closest('.plot, script, :disabled, .step:not([href])')) continue;
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(parts(getComputedStyle(e).color).slice(0, 3)), light(ground(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) bad.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
  }
  return bad.slice(0, 5);
})()"""


SET = """((control, value, event) => { control.value = value; control.dispatchEvent(new Event(event)); })
  (document.querySelector('%s'), '%s', '%s')"""


def test_page_opens_draws_and_stays_quiet(browser, options):
    browser.open(options["page"].as_uri())
    opened = browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert 0 < opened < 2000
    browser.run(SCROLL)
    plots = browser.run(PLOTS)
    assert len(plots) > 25
    assert [name for name, traces, alt in plots if not traces or len(alt) < 20] == []
    assert browser.run("window.injected") is None and browser.run("document.querySelectorAll('main img').length") == 0
    assert browser.complaints() == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_page_fits_the_screen_and_can_be_read(browser, options, width, dark):
    browser.open(options["page"].as_uri(), width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.className)"
    assert browser.run(wide) == []
    assert browser.run(CONTRAST) == []


def test_language_and_colours_switch(browser, options):
    browser.open(options["page"].as_uri())
    browser.run(SCROLL)
    title = "document.querySelector('#figure-sft-loss .xtitle').textContent"
    assert browser.run(title) == "step"
    browser.run("document.querySelector('[data-speak=zh]').click()")
    assert browser.run(title) == "步"
    assert browser.run("document.documentElement.lang + document.title") == "zhCOVID 医生：一次运行的结果"
    assert "SFT 有帮助吗" in browser.run("document.querySelector('.answers').innerText")
    assert "Did SFT" not in browser.run("document.querySelector('.answers').innerText")
    grid = "document.querySelector('#figure-sft-loss .gridlayer path').style.stroke"
    light = browser.run(grid)
    browser.run("document.querySelector('#theme').click()")
    assert browser.run(grid) != light
    assert browser.complaints() == []


def test_the_keyboard_reaches_every_question(browser, options):
    def press(key, **more):
        for kind in ("keyDown", "keyUp"):
            browser.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    browser.open(f"{options['page'].as_uri()}#sample-2")
    browser.run("document.querySelector('#sort').focus()")
    press("Tab", windowsVirtualKeyCode=9)  # the direction has no meaning in test order, and is passed over
    assert browser.run("document.activeElement.hash") == "#sample-2"
    press("ArrowDown", windowsVirtualKeyCode=40)
    press("ArrowDown", windowsVirtualKeyCode=40)
    press("ArrowUp", windowsVirtualKeyCode=38)
    assert browser.run("document.activeElement.hash") == "#sample-3"
    press("Enter", text="\r", windowsVirtualKeyCode=13)
    opened = "document.querySelector('.detail h3').textContent === 'Question 3'"
    assert browser.run(f"new Promise(r => (f = n => {opened} || !n ? r(n) : setTimeout(f, 20, n - 1))(100))") > 0
    press("Tab", windowsVirtualKeyCode=9)
    assert browser.run("!!document.activeElement.closest('.detail')")
    assert browser.complaints() == []


def test_answers_are_found_sorted_and_linked(browser, options):
    browser.open(f"{options['page'].as_uri()}#sample-4")
    assert browser.run("document.querySelector('.detail h3').textContent") == "Question 4"
    shown = browser.run("document.querySelector('.question .text').textContent")
    assert shown == HOSTILE.replace("\ud83d", "?") and browser.run("window.injected") is None
    assert browser.run("document.querySelectorAll('.three article').length") == 3

    def search(text):
        browser.run(SET % ("[type=search]", text, "input"))

    search("INJECTED sft")
    assert browser.run("[...document.querySelectorAll('.list a')].map(a => a.hash)") == ["#sample-4"]
    search("no such word")
    assert browser.run("document.querySelector('.list').innerText") == "No question matches."
    search("")

    browser.run(SET % ("#sort", "longer", "change"))
    shown = browser.run("[...document.querySelectorAll('.list .key')].map(k => k.textContent)")
    changes = [int(text.replace("−", "-")) for text in shown]
    assert len(changes) == 40 and changes == sorted(changes, reverse=True) and changes[0] > changes[-1]
    browser.run("document.querySelector('.list a').click()")
    assert browser.run("document.querySelector('.list a').getAttribute('aria-current')") == "true"
    assert browser.run("location.hash") == browser.run("document.querySelector('.list a').hash")

    browser.open(f"{options['page'].as_uri()}#sample-5")
    browser.run("document.querySelectorAll('.step')[1].focus()")
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    browser.run("new Promise(r => (f = () => document.querySelector('.three .none') ? r() : setTimeout(f, 20))())")
    assert browser.run("document.activeElement.textContent") == "Next"
    assert browser.run("document.querySelector('.three .none').textContent") == "(empty answer)"
    assert browser.complaints() == []
