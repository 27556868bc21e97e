"""The report: smoothing, checks, what Git keeps, errors that name their file, the same bytes twice."""

import csv
import json
import math
import shutil
import string
from pathlib import Path

import pytest
import report_run
from report_run import get, put

from stages.metrics.bootstrap import Interval
from stages.metrics.definitions import BASELINE, METRICS, MODELS
from stages.page import environments, health, i18n, inputs, reference_results, reward_model, smoothing
from stages.report import main


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A whole run with its report written."""
    found = report_run.write(tmp_path_factory.mktemp("run"))
    main(**found)
    return found


def read(options):
    return inputs.read(options["reports"], options["params_file"])


def copy(options, tmp_path):
    """The run once more, to change it."""
    shutil.copytree(options["params_file"].parent, tmp_path / "run")
    return report_run.options(tmp_path / "run")


# ----------------------------------------------------------------------------------------------------------------------
# Numbers


def test_smoothing_is_the_tutorials():
    weight = 1.8 * (1 / (1 + math.exp(-0.05 * 3)) - 0.5)
    second = weight * 4 + (1 - weight) * 2
    assert smoothing.smooth([4.0, 2.0, None]) == [4.0, pytest.approx(second), None]
    assert smoothing.ends([None, *map(float, range(20))]) == (2.0, 17.0)
    assert smoothing.ends([None]) is None


def test_a_reward_model_that_counts_characters_is_found_out():
    lengths = [(30, 10)] * 60 + [(10, 30)] * 30 + [(20, 20), (20, 19)] * 20
    pairs = {
        "question": [float(pair // 2) for pair in range(len(lengths))],
        "chosen": [float(chosen) for chosen, _ in lengths],
        "rejected": [float(rejected) for _, rejected in lengths],
        "chosen_length": [float(chosen) for chosen, _ in lengths],
        "rejected_length": [float(rejected) for _, rejected in lengths],
    }
    found = reward_model.measure(pairs, 200, 1)
    shares = {name: (group.pairs, group.accuracy.value) for name, group in found.groups.items()}
    assert shares["longer"] == (60, 1.0) and shares["shorter"] == (30, 0.0) and shares["similar"] == (40, 0.5)
    assert found.reads.value == pytest.approx(20 / 70) and found.reads.low < 0.5
    assert found.length_correlation == pytest.approx(1)
    assert [band.group.pairs for band in found.bins] == [26] * 5
    assert found.groups["all"].accuracy.units == 65, "questions, not pairs"


# ----------------------------------------------------------------------------------------------------------------------
# Health


def between(start, end):
    """A curve of 20 values whose first quarter is `start` and whose last quarter is `end`."""
    return [start] * 5 + [start + (end - start) * i / 9 for i in range(10)] + [end] * 5


def healthy_run(options):
    run = read(options)
    ppo: dict[str, tuple[float, float]] = {
        "score": (0, 1),
        "kl": (0, 4),
        "entropy": (2, 1.5),
        "length_score_correlation": (0, 0),
        "ratio": (1, 1),
    }
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
    accuracy = reward_model.Group("all", 100, Interval(0.7, low, 0.8, 100))
    model = reward_model.RewardModel({"all": accuracy}, Interval(0.7, 0.6, 0.8, 100), [], [], None)
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
# Sentences and files


def test_each_sentence_says_the_same_in_both_languages():
    for key, texts in i18n.dictionary().items():
        fields = [{name for _, name, _, _ in string.Formatter().parse(texts[lang]) if name} for lang in ("en", "zh")]
        assert set(texts) == {"en", "zh"} and fields[0] == fields[1], key


def test_same_inputs_same_bytes(options, tmp_path):
    names = ("page", "summary", "headline", "environment", "plots")
    again = options | {name: tmp_path / options[name].name for name in names}
    main(**again)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert [path.name for path in written] == [
        "environment.json", "index.html", "metrics.json", "losses.csv", "models.csv", "ppo.csv", "summary.md"
    ]  # fmt: skip
    for path in written:
        assert (tmp_path / path).read_bytes() == (options["page"].parent / path).read_bytes()


def test_summary_tells_the_story_in_both_languages(options, tmp_path):
    summary = options["summary"].read_text(encoding="utf-8")
    assert (
        "SFT raised ROUGE-L from" in summary
        and "From the first to the last quarter of 60 updates the reward went from" in summary
    )
    assert "40 questions of 20 dialogues" in summary and "# RLHF on &lt;b&gt;sample: what the run shows" in summary
    assert "| ROUGE-L | " in summary and str(options["page"].parent) not in summary and "COVID" not in summary
    lines = summary.splitlines()
    for number, line in enumerate(lines):
        if line.startswith("| --- |"):  # a table needs an empty line before its head, and as many cells in each row
            assert lines[number - 2] == "" and lines[number + 1].count(" | ") == line.count(" | ")
    chinese = copy(options, tmp_path)
    chinese["params_file"].write_text(report_run.PARAMS.replace("en}", "zh}").replace("title: null", "title: 测试"))
    main(**chinese)
    summary = chinese["summary"].read_text(encoding="utf-8")
    assert summary.startswith("# 测试\n") and "SFT 有帮助吗？" in summary and "Did SFT" not in summary


def test_published_figures_stand_beside_the_covid_dialogues_alone(options, tmp_path):
    def told(run):
        main(**run)
        return run["summary"].read_text(encoding="utf-8") + run["page"].read_text(encoding="utf-8").split('plotly">')[0]

    ours = told(options)
    assert "17.63" not in ours and "28.58" not in ours and "ChatGLM-6B went" not in ours and "19.52" not in ours
    covid = copy(options, tmp_path)
    put(covid["reports"] / "data/metrics.json", {"sha256": {"test": reference_results.TEST_DATA}})
    theirs = told(covid)
    assert "| 9.95 → 17.63 (base → SFT) |" in theirs and "from 9.95 to 17.63 on the same test questions" in theirs
    assert "on these very test questions" in theirs and "on these very test questions" not in ours


def test_what_git_keeps_of_a_run(options):
    def table(name):
        with (options["plots"] / f"{name}.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))

    models = table("models")
    shown = [metric.name for metric in METRICS if not metric.optional]
    assert [(row["metric"], row["model"]) for row in models] == [
        (name, model) for name in shown for model in (*MODELS, BASELINE)
    ]
    assert all(float(row["low"]) <= float(row["value"]) <= float(row["high"]) for row in models)
    headline = json.loads(options["headline"].read_text(encoding="utf-8"))
    assert next(iter(headline)) == "ppo"
    for row in models:
        assert headline[row["model"]][row["metric"]] == pytest.approx(float(row["value"]), rel=1e-5, abs=1e-4)
    assert headline["eval_loss"] == {"base": 1.25, "rm": 1.25}, "one that was not measured is left out"
    assert headline["reward_model"]["accuracy"] == 0.75
    assert headline["rollouts"] == {"score": 0.5}
    assert headline["probes"]["kl"] == 1.5 and headline["probes"]["gain_when_cut"] == 0
    losses = table("losses")
    assert len(losses) == sum(
        len(curve(options, f"{stage}/{part}")) for stage in ("base", "sft", "rm") for part in ("curve", "eval_curve")
    )
    assert losses[-1] == {"stage": "rm", "part": "eval", "step": "8"} | {
        "loss": curve(options, "rm/eval_curve")[-1]["eval_loss"]
    }
    assert table("ppo") == curve(options, "ppo/curve")


def curve(options, name):
    with (options["reports"] / f"{name}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_facts_are_shown_where_there_are_any(options, tmp_path):
    run = copy(options, tmp_path)
    for model in (*MODELS, BASELINE):
        path = run["reports"] / f"evaluation/{model}.jsonl"
        rows = get(path)
        for number, row in enumerate(rows):
            if number % 3:  # of the others nothing is known
                row |= {"facts_named": float(model == "ppo"), "facts_contradicted": 0.0}
        put(path, rows)
    main(**run)
    headline = json.loads(run["headline"].read_text(encoding="utf-8"))
    assert (headline["sft"]["facts_named"], headline["ppo"]["facts_named"]) == (0, 100)
    assert "| Facts named, % | 0.0 (" in run["summary"].read_text(encoding="utf-8")
    assert "Facts" not in options["summary"].read_text(encoding="utf-8")


def test_a_run_without_preferences_has_a_report_of_base_and_sft(options, tmp_path):
    """What `evaluate` leaves then: no rewards, no PPO, nothing of the reward model."""
    run = copy(options, tmp_path)
    reports = run["reports"]
    for gone in ("rm", "ppo", "answers/ppo.jsonl", "evaluation"):
        path = reports / gone
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for model in ("base", "sft", BASELINE):
        rows = get(options["reports"] / f"evaluation/{model}.jsonl")
        put(reports / f"evaluation/{model}.jsonl", [{k: v for k, v in row.items() if k != "reward"} for row in rows])
    put(reports / "evaluation/lineage.json", {"base": {}, "sft": {}})
    main(**run)
    summary, whole = (each["summary"].read_text(encoding="utf-8") for each in (run, options))
    assert [line for line in summary.splitlines() if "Did SFT help" in line] == [
        line for line in whole.splitlines() if "Did SFT help" in line
    ]
    assert summary.startswith("# SFT on &lt;b&gt;sample: what the run shows\n")
    assert "PPO" not in summary and "eward" not in summary and summary.count("- **") == 2
    assert "| Metric | Base | SFT | Nearest question |\n" in summary and "| Metric | Base → SFT |\n" in summary
    page = run["page"].read_text(encoding="utf-8").split('<script type="application/json" id="words">')[0]
    assert "no reward model and no PPO" in page and 'id="reward-model"' not in page and 'id="figure-ppo' not in page
    headline, of_all = (json.loads(each["headline"].read_text(encoding="utf-8")) for each in (run, options))
    assert list(headline) == ["sft", "base", BASELINE, "eval_loss"]
    assert headline["sft"] == {k: v for k, v in of_all["sft"].items() if k not in ("reward", "distinct-2")} | {
        "distinct-2": headline["sft"]["distinct-2"]  # drawn anew: PPO's answers no longer bound the draws
    }
    assert (run["plots"] / "ppo.csv").read_text(encoding="utf-8").count("\n") == 1


def test_different_environments_are_told(options, tmp_path):
    kept = json.loads(options["environment"].read_text(encoding="utf-8"))
    assert kept == {
        "environments": [
            {"stages": ["base", "sft", "rm", "ppo"], "environment": {"cpu": "one", "packages": {"torch": "2"}}}
        ]
    }
    assert "did not all run in one environment" not in options["page"].read_text(encoding="utf-8")
    run = copy(options, tmp_path)
    put(run["reports"] / "ppo/environment.json", {"cpu": "another", "packages": {"torch": "2"}})
    (run["reports"] / "rm/environment.json").unlink()  # an older run did not record it
    main(**run)
    page = run["page"].read_text(encoding="utf-8")
    assert "did not all run in one environment" in page and "What differs: cpu (another, one)." in page
    groups = json.loads(run["environment"].read_text(encoding="utf-8"))["environments"]
    assert [group["stages"] for group in groups] == [["base", "sft"], ["ppo"]]
    assert environments.warning({}) is None


def test_page_escapes_data_asks_for_nothing_and_stays_small(tmp_path):
    options = report_run.write(tmp_path, count=410, updates=2375, pairs=1000)
    main(**options)
    html = options["page"].read_text(encoding="utf-8")
    assert len(html.encode()) < 6_000_000
    ours = html.split('<script type="text/plain" id="plotly">')[0]
    assert "<img" not in ours and "window.injected = 1</script>" not in ours and "<b>sample" not in ours
    assert str(tmp_path) not in html and 'src="http' not in ours and 'href="http' not in ours


def test_a_title_of_ones_own_is_escaped(options, tmp_path):
    run = copy(options, tmp_path)
    run["params_file"].write_text(report_run.PARAMS.replace("title: null", "title: '<i>Ours</i>'"), encoding="utf-8")
    main(**run)
    html = run["page"].read_text(encoding="utf-8")
    assert "<title>&lt;i&gt;Ours&lt;/i&gt;</title>" in html and "<i>Ours" not in html.split('id="plotly"')[0]
    assert run["summary"].read_text(encoding="utf-8").startswith("# &lt;i&gt;Ours&lt;/i&gt;\n")


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        ("reports/evaluation/sft.jsonl", lambda text: text.replace("bleu-4", "bleu", 1), "line 1: key `bleu-4` is mis"),
        ("reports/evaluation/ppo.jsonl", lambda text: text.split("\n", 1)[1], "39 lines for 40 test samples"),
        ("reports/evaluation/base.jsonl", lambda text: text.replace('"reward": ', '"reward": -Infinity, "x": ', 1),
         "line 1: `reward` must be a finite number"),
        ("reports/evaluation/probes.jsonl", lambda text: text.replace('"closing"', '"x"', 1), "`closing` is missing"),
        ("reports/evaluation/pairs.jsonl", lambda text: "", "no lines"),
        ("reports/answers/ppo.jsonl", lambda text: text.split("\n", 1)[1], "line 1: not the sample that base.j"),
        ("reports/answers/sft.jsonl", lambda text: text[:-20], "line 40: not JSON"),
        ("reports/ppo/curve.csv", lambda text: text.replace("kl_k3", "k3"), "line 1: column `kl_k3` is missing"),
        ("reports/ppo/curve.csv", lambda text: text.split("\n")[0] + "\n", "no rows, so PPO made no update"),
        ("reports/rm/curve.csv", lambda text: text.replace("1,", "one,", 1), "`step` is not a number"),
        ("reports/evaluation/lineage.json", None, "no such file"),
        ("params.yaml", lambda text: text.replace("en}", "fr}"), "`report.language` must be"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(options, tmp_path, capsys, path, change, message):
    run = copy(options, tmp_path)
    broken = tmp_path / "run" / path
    if change:
        broken.write_text(change(broken.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        broken.unlink()
    with pytest.raises(SystemExit):
        main(**run)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and path in error and message in error


def test_answers_of_an_older_run_have_no_dialogue(options, tmp_path):
    """Each sample is then a dialogue of its own."""
    run = copy(options, tmp_path)
    for model in MODELS:
        path = run["reports"] / f"answers/{model}.jsonl"
        put(path, [{key: value for key, value in row.items() if key != "dialogue"} for row in get(path)])
    assert read(run).dialogues == list(range(40)) and read(options).dialogues == [n // 2 for n in range(40)]
