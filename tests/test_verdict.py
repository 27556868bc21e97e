"""The verdicts claim what the intervals show, and no more: a loss ruled out, a loss shown, or "can't tell"."""

from typing import Any

import pytest
import report_run

from stages.metrics import bootstrap
from stages.metrics.bootstrap import Interval
from stages.metrics.definitions import BY_NAME
from stages.page import comparison, health, i18n, inputs, probes, reward_model, verdict


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> inputs.Run:
    options = report_run.write(tmp_path_factory.mktemp("run"))
    return inputs.read(options["reports"], options["params_file"])


@pytest.fixture(scope="module")
def found(run: inputs.Run) -> dict[str, Any]:
    return {
        "compared": comparison.compare(run, 100, 1),
        "rewards": reward_model.measure(run.pairs, 100, 1),
        "probed": probes.measure(run, 100, 1),
    }


def between(low: float, high: float, units: int = 80) -> Interval:
    return Interval((low + high) / 2, low, high, units, 0.5)


def answers(run, found, **changes):
    given = found | changes
    return verdict.answers(run, given["compared"], given["rewards"], given["probed"], [])


LONGER = "The answers got longer."


@pytest.mark.parametrize(
    ("changes", "tone", "short"),
    [
        ({}, "good", f"{LONGER} No cost: every loss is ruled out down to its margin."),
        # not shown to fall, and not shown to stay: the case that used to read "at no cost that counts"
        ({"rouge-1": between(-3.9, 0.1)}, "mixed",
         f"{LONGER} Can't tell at what cost; not ruled out: a fall of ROUGE-1 by up to 3.9."),
        ({"rouge-1": between(-3, -1)}, "mixed", f"{LONGER} At a cost: ROUGE-1 fell by 2.0."),
        ({"rouge-1": between(-0.7, -0.1)}, "good", f"{LONGER} No cost: every loss is ruled out down to its margin."),
        ({"repetition": between(2, 6)}, "mixed", f"{LONGER} At a cost: Repeats itself, % rose by 4.0."),
        ({"repetition": between(-1, 6)}, "mixed",
         f"{LONGER} Can't tell at what cost; not ruled out: a rise of Repeats itself, % by up to 6.0."),
        ({"eos_rate": between(-9, -7)}, "mixed", f"{LONGER} At a cost: Ended by itself, % fell by 8.0."),
        ({"distinct-2": between(-8, -1)}, "mixed", f"{LONGER} At a cost: Distinct-2 fell by 4.5."),
        ({"rouge-1": between(-3, -1), "rouge-l": between(-5, 1)}, "mixed", f"{LONGER} At a cost: ROUGE-1 fell by 2.0."),
        # no evidence: too few dialogues, or an interval without width
        ({"rouge-1": between(-0.5, 0.5, units=19)}, "mixed",
         f"{LONGER} Can't tell at what cost; not ruled out: a fall of ROUGE-1 (too little data)."),
        ({"rouge-1": between(0, 0)}, "mixed",
         f"{LONGER} Can't tell at what cost; not ruled out: a fall of ROUGE-1 (too little data)."),
        ({"response_length": between(-1, 3)}, "mixed",
         "Can't tell whether the answers got longer. No cost: every loss is ruled out down to its margin."),
        ({"response_length": between(-3, -1)}, "bad",
         "No: the answers got shorter. No cost: every loss is ruled out down to its margin."),
        ({"response_length": between(1, 3, units=19)}, "mixed",
         "Can't tell whether the answers got longer. No cost: every loss is ruled out down to its margin."),
    ],
)  # fmt: skip
def test_ppo(run, found, changes, tone, short):
    harmless = {"rouge-1": between(-0.9, 2), "rouge-l": between(-0.9, 2), "eos_rate": between(-4, 4)}
    harmless |= {"repetition": between(-2, 0.9), "distinct-2": between(-1.9, 3), "response_length": between(8, 10)}
    differences = dict(found["compared"].differences)
    differences["sft", "ppo"] = differences["sft", "ppo"] | harmless | changes
    answer = answers(run, found, compared=found["compared"]._replace(differences=differences))[1]
    assert (answer.tone, i18n.say(answer.short, "en")) == (tone, short)
    because = " ".join(i18n.say(each, "en") for each in answer.because)
    assert "in points: ROUGE-1 1, ROUGE-L 1, Ended by itself, % 5, Repeats itself, % 1, Distinct-2 2." in because
    assert i18n.say(answer.short, "zh") and ("无法判断" in i18n.say(answer.short, "zh")) == ("Can't tell" in short)


def test_reward_goes_from_the_first_quarter_to_the_last(run):
    ppo = run.curves["ppo"] | {"score": [0.0, 1.0, 5.0, 5.0, 5.0, 5.0, 2.0, 4.0]}
    said = i18n.say(verdict.training(run._replace(curves=run.curves | {"ppo": ppo}))[0], "en")
    assert "the reward went from 0.500 to 3.000" in said


@pytest.mark.parametrize(
    ("change", "tone", "short"),
    [
        (between(1, 3), "good", "Yes."),
        (between(-3, -1), "bad", "No, it made the answers worse."),
        (between(-1, 3), "mixed", "Can't tell: the difference may be chance."),
        (between(1, 3, units=19), "mixed", "Can't tell: the difference may be chance."),
        (between(2, 2), "mixed", "Can't tell: the difference may be chance."),
    ],
)
def test_sft(run, found, change, tone, short):
    differences = dict(found["compared"].differences)
    differences["base", "sft"] = differences["base", "sft"] | {"rouge-l": change}
    answer = answers(run, found, compared=found["compared"]._replace(differences=differences))[0]
    assert (answer.tone, i18n.say(answer.short, "en")) == (tone, short)
    assert "most similar training question reaches" in i18n.say(answer.because[1], "en")


@pytest.mark.parametrize(
    ("overall", "reads", "question_gain", "tone", "short"),
    [
        (between(0.8, 0.9), between(0.6, 0.8), between(0.1, 0.2), "good", "It reads"),
        # what used to be enough: right where length can't tell, whatever the question
        (between(0.8, 0.9), between(0.6, 0.8), between(-0.05, 0.05), "mixed", "More than length, but it is not shown"),
        (between(0.8, 0.9), between(0.6, 0.8), between(0.1, 0.2, units=19), "mixed", "More than length, but it is not"),
        (between(0.8, 0.9), between(0.4, 0.6), between(0.1, 0.2), "mixed", "Can't tell: it may only count"),
        (between(0.8, 0.9), between(0.6, 0.8, units=19), between(0.1, 0.2), "mixed", "Can't tell: it may only count"),
        (between(0.8, 0.9), between(0.2, 0.4), between(0.1, 0.2), "bad", "It counts characters"),
        (between(0.4, 0.6), between(0.6, 0.8), between(0.1, 0.2), "bad", "Can't tell: it is not shown to beat chance"),
        (between(0.8, 0.9, units=19), between(0.6, 0.8), between(0.1, 0.2), "mixed", "Can't tell: it is not shown to"),
    ],
)
def test_reward_model(run, found, overall, reads, question_gain, tone, short):
    groups = found["rewards"].groups
    rewards = found["rewards"]._replace(groups=groups | {"all": groups["all"]._replace(accuracy=overall)}, reads=reads)
    probed = found["probed"]._replace(question_gain=question_gain)
    answer = answers(run, found, rewards=rewards, probed=probed)[2]
    assert answer.tone == tone and i18n.say(answer.short, "en").startswith(short)


def test_health(run, found):
    good = health.Check("kl", True, i18n.Sentence("found.mean", {"mean": "1"}))
    last = verdict.answers(run, found["compared"], found["rewards"], found["probed"], [good, good])[3]
    assert last.tone == "good"
    failed = good._replace(healthy=False)
    last = verdict.answers(run, found["compared"], found["rewards"], found["probed"], [good, failed])[3]
    assert last.tone == "mixed" and "1 of 2 checks did not pass" in i18n.say(last.short, "en")


@pytest.mark.parametrize(
    ("metric", "change", "harm"),
    [
        ("rouge-1", (-0.99, 1), "none"),
        ("rouge-1", (-1, 1), "possible"),
        ("rouge-1", (-5, -0.01), "shown"),
        ("repetition", (-1, 0.99), "none"),
        ("repetition", (-1, 1), "possible"),
        ("repetition", (0.01, 5), "shown"),
    ],
)
def test_harm(metric, change, harm):
    assert verdict.harm(between(*change), BY_NAME[metric]) == harm
    assert verdict.harm(between(*change, units=19), BY_NAME[metric]) == "possible"


def test_bold_cells_are_corrected_for_their_number(run, monkeypatch):
    """A change that one alone would show at 5 % is not marked among thirty."""
    compared = comparison.compare(run, 400, 1)
    weak = Interval(1.0, 0.1, 1.9, 80, 0.03)
    monkeypatch.setattr(bootstrap, "difference", lambda *_: weak)
    among_many = comparison.compare(run, 100, 1)
    assert not {(pair, name) for pair, name in among_many.significant if name != "distinct-2"}
    assert compared.significant
