"""Numbers → what each figure shows. How it looks (colours, fonts, language) is decided in the browser, by charts.js.

A line of a figure names a style (raw, smooth, trail, eval, bar, outline, points, path, published, guide), a colour by
what it stands for, and its key in the dictionary.
"""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from stages.metrics.definitions import BASELINE
from stages.page import reference_results
from stages.page.comparison import Comparison
from stages.page.formats import fixed, percent, span
from stages.page.i18n import Sentence
from stages.page.inputs import Columns, Run, known
from stages.page.reward_model import RewardModel, correlation
from stages.page.smoothing import ends, smooth

POINTS = 450  # a line or a cloud keeps at most this many: the page stays small however long the run
LENGTH_BARS, MARGIN_BARS, TREND = 60, 20, 8

Trace = dict[str, Any]


class Panel(NamedTuple):
    """One pair of axes: `x` and `y` are dictionary keys, and `alt` says in words what is to be seen."""

    x: str
    y: str
    traces: list[Trace]
    alt: Sentence
    options: Mapping[str, Any] = MappingProxyType({})
    title: str | None = None


class Figure(NamedTuple):
    """Panels under one heading, `figure.<name>`, with one sentence on how to read them, `figure.<name>.caption`."""

    name: str
    panels: list[Panel]
    published: Sentence | None = None
    wide: bool = False


def results(run: Run, comparison: Comparison) -> list[Figure]:
    length = [_length(run, comparison)] if run.pairs else []
    return [_rouge(run, comparison), *length, _lengths(run)]


def losses(run: Run, smoothing: bool) -> list[Figure]:
    """The tutorial's training curves."""
    comparable = _comparable(run)
    sft = {"loss": fixed(reference_results.SFT_EVAL_LOSS, 1), "steps": str(reference_results.SFT_STEPS)}
    of_sft = Figure("sft-loss", [_loss(run, "sft", smoothing)], Sentence("published.sft", sft) if comparable else None)
    if not run.pairs:
        return [of_sft]
    rm = {"loss": fixed(reference_results.RM_EVAL_LOSS, 3), "steps": str(reference_results.RM_STEPS)}
    start, end = reference_results.PPO_REWARD
    ppo = {"start": fixed(start, 2), "end": fixed(end, 2), "steps": str(reference_results.PPO_STEPS)}
    loss = _over(run.curves["ppo"], "loss", "axis.loss", "ppo", smoothing)
    reward = _over(run.curves["ppo"], "score", "axis.reward", "ppo", smoothing)
    return [
        of_sft,
        Figure("rm-loss", [_loss(run, "rm", smoothing)], Sentence("published.rm", rm) if comparable else None),
        Figure("ppo-loss", [loss]),
        Figure("ppo-reward", [reward], Sentence("published.ppo", ppo) if comparable else None),
    ]


def behaviour(run: Run, smoothing: bool) -> list[Figure]:
    """What PPO did to the answers while it trained."""
    ppo = run.curves["ppo"]
    by_length = "length_score_correlation"
    steps = [
        _over(ppo, "kl", "axis.kl", "ppo", smoothing, title="panel.kl"),
        _over(ppo, "entropy", "axis.entropy", "ppo", smoothing, title="panel.entropy"),
        _over(ppo, "eos_rate", "axis.share", "ppo", smoothing, title="panel.eos_rate", options=SHARE),
        _over(ppo, "repetition", "axis.share", "ppo", smoothing, title="panel.repetition", options=SHARE),
        _over(ppo, "response_length", "axis.tokens", "ppo", smoothing, title="panel.response_length"),
        _over(ppo, "reward", "axis.reward", "ppo", smoothing, title="panel.reward"),
        _over(ppo, "kl_coef", "axis.kl_coef", "ppo", False, title="panel.kl_coef"),
    ]
    steps.append(_over(ppo, by_length, "axis.correlation", "ppo", smoothing, title=f"panel.{by_length}"))
    return [Figure("ppo-steps", steps, wide=True), _reward_kl(ppo), _reward_length(run)]


def diagnostics(run: Run, smoothing: bool) -> list[Figure]:
    """For those who look for what went wrong."""
    found = [_ppo_diagnostics(run.curves["ppo"], smoothing)] if run.pairs else []
    for stage in ("base", "sft", "rm"):
        curve = run.curves.get(stage, {"step": []})
        if curve["step"]:
            norm = _over(curve, "grad_norm", "axis.grad_norm", stage, smoothing, title="panel.grad_norm")
            rate = _over(curve, "learning_rate", "axis.learning_rate", stage, False, title="panel.learning_rate")
            loss = [_loss(run, stage, smoothing)._replace(title="panel.loss")] if stage == "base" else []
            found.append(Figure(f"{stage}-diagnostics", [*loss, norm, rate], wide=True))
    return found


def _ppo_diagnostics(ppo: Columns, smoothing: bool) -> Figure:
    names = ("policy_loss", "value_loss", "explained_variance", "clip_fraction", "approx_kl", "ratio", "grad_norm")
    panels = [_over(ppo, name, f"axis.{name}", "ppo", smoothing, title=f"panel.{name}") for name in names]
    panels.append(_over(ppo, "kl_k3", "axis.kl", "ppo", smoothing, title="panel.kl_k3"))
    panels.append(_over(ppo, "score_std", "axis.reward", "ppo", smoothing, title="panel.score_std"))
    panels.append(_over(ppo, "learning_rate", "axis.learning_rate", "ppo", False, title="panel.learning_rate"))
    return Figure("ppo-diagnostics", panels, wide=True)


def reward_model(run: Run, found: RewardModel, smoothing: bool) -> list[Figure]:
    curve = run.curves["rm"]
    accuracy = _over(curve, "accuracy", "axis.accuracy", "rm", smoothing, options=SHARE)
    held_out = run.curves["rm_eval"]
    accuracy.traces.append(_trace("eval", "eval", "chart.eval", held_out["step"], held_out["eval_accuracy"]))
    return [_rm_groups(found), _rm_bins(found), _rm_margins(found), Figure("rm-accuracy", [accuracy])]


SHARE = {"percent": True}


def _comparable(run: Run) -> bool:
    return reference_results.comparable(run.documents["data"])


def _rouge(run: Run, comparison: Comparison) -> Figure:
    metrics = {"rouge-1": "ROUGE-1", "rouge-2": "ROUGE-2", "rouge-l": "ROUGE-L"}
    traces = []
    for model, found in comparison.values.items():
        values = [found[metric] for metric in metrics]
        color = "muted" if model == BASELINE else model
        traces.append(_bar(color, f"model.{model}", list(metrics.values()), values, group=model))
    for model in ("base", "sft") if _comparable(run) else ():
        numbers = [reference_results.METRICS[model][metric] for metric in metrics]
        # one entry in the legend for both
        hidden = model == "sft"
        traces.append(
            _trace("published", model, "chart.published", list(metrics.values()), numbers, group=model, unlisted=hidden)
        )
    alt = _by_model({model: fixed(comparison.values[model]["rouge-l"].value, 2) for model in run.models})
    return Figure("rouge", [Panel("axis.none", "axis.score", traces, Sentence("alt.rouge", alt))])


def _by_model(values: Mapping[str, str]) -> dict[str, list[Sentence]]:
    """`models` of a description of a figure: each one's name, or the doctor's, and its value."""
    label = {name: Sentence("chart.doctor" if name == "doctor" else f"model.{name}") for name in values}
    return {"models": [Sentence("alt.model", {"model": label[name], "value": value}) for name, value in values.items()]}


def _length(run: Run, comparison: Comparison) -> Figure:
    models = ("sft", "ppo")
    names = [f"model.{model}" for model in models]
    traces = [
        _bar(model, f"model.{model}", [f"model.{model}"], [comparison.values[model]["response_length"]])
        for model in models
    ]
    doctor = sum(len(sample.label) for sample in run.samples) / len(run.samples)
    if _comparable(run):
        numbers = [reference_results.METRICS[model]["response_length"] for model in models]
        traces.append(_trace("published", "ink", "chart.published", names, numbers))
    traces.append(_trace("guide", "doctor", "chart.doctor", names, [doctor, doctor]))
    alt = {model: fixed(comparison.values[model]["response_length"].value, 1) for model in models}
    alt["change"] = fixed(comparison.differences["sft", "ppo"]["response_length"].value, 1, sign=True)
    alt["span"] = span(comparison.differences["sft", "ppo"]["response_length"], 1, sign=True)
    return Figure("length", [Panel("axis.none", "axis.characters", traces, Sentence("alt.length", alt), NAMES)])


NAMES = {"names": True}  # the categories of the x axis are dictionary keys


def _lengths(run: Run) -> Figure:
    lengths = {model: known(run.scores[model]["response_length"]) for model in run.models}
    lengths["doctor"] = [float(len(sample.label)) for sample in run.samples]
    # The longest hundredth shares the last bar: one endless answer must not squeeze the rest into a corner.
    top = float(np.quantile(np.concatenate(list(lengths.values())), 0.99))
    width = max(1, math.ceil((top + 1) / LENGTH_BARS))
    edges = np.arange(0, top + 1 + width, width)
    traces = []
    for name, values in lengths.items():
        counts, _ = np.histogram(np.minimum(values, edges[-1] - 0.5), edges)
        share = [*(counts / len(values)), 0.0]
        label = "chart.doctor" if name == "doctor" else f"model.{name}"
        traces.append(_trace("outline", name, label, edges.tolist(), share))
    alt = _by_model({name: fixed(float(np.median(values)), 0) for name, values in lengths.items()})
    panel = Panel("axis.characters", "axis.share", traces, Sentence("alt.lengths", alt), SHARE)
    return Figure("lengths", [panel], wide=True)


def _loss(run: Run, stage: str, smoothing: bool) -> Panel:
    panel = _over(run.curves[stage], "loss", "axis.loss", stage, smoothing)
    held_out = run.curves[f"{stage}_eval"]
    panel.traces.append(_trace("eval", "eval", "chart.eval", held_out["step"], held_out["eval_loss"]))
    known = [value for value in held_out["eval_loss"] if value is not None]
    if panel.alt.key == "alt.curve" and known:
        values = {"best": fixed(min(known), 3), "last": fixed(known[-1], 3)}
        return panel._replace(alt=Sentence("alt.loss", {**panel.alt.values, **values}))
    return panel


def _over(
    curve: Columns,
    name: str,
    y: str,
    color: str,
    smoothing: bool,
    title: str | None = None,
    options: dict[str, Any] | None = None,
) -> Panel:
    """A column over the steps: raw, and its trend on top."""
    traces = [_trace("raw" if smoothing else "smooth", color, "chart.raw", curve["step"], curve[name])]
    if smoothing:
        traces.append(_trace("smooth", color, "chart.smoothed", curve["step"], smooth(curve[name])))
    found = ends(curve[name])
    alt = Sentence("alt.empty")
    if found:
        alt = Sentence("alt.curve", {"start": fixed(found[0], 3), "end": fixed(found[1], 3)})
    return Panel("axis.step", y, traces, alt, options or {}, title)


def _reward_kl(ppo: Columns) -> Figure:
    points = _trace("path", "ppo", "chart.update", ppo["kl"], ppo["score"], steps=_thin(ppo["step"]))
    trend = _trace("trail", "ink", "chart.trend", _blocks(ppo["kl"]), _blocks(ppo["score"]))
    score, kl = ends(ppo["score"]), ends(ppo["kl"])
    alt = Sentence("alt.empty")
    if score and kl:
        words = {"kl_start": kl[0], "kl_end": kl[1], "score_start": score[0], "score_end": score[1]}
        alt = Sentence("alt.reward-kl", {name: fixed(value, 3) for name, value in words.items()})
    return Figure("reward-kl", [Panel("axis.kl", "axis.reward", [points, trend], alt)])


def _blocks(values: Sequence[float | None]) -> list[float | None]:
    """The means of up to `TREND` equally long stretches of the run, in order: a path without the updates' noise."""
    found = []
    for part in np.array_split(np.array(values, dtype=np.float64), min(TREND, len(values))):
        finite = part[np.isfinite(part)]
        found.append(float(finite.mean()) if len(finite) else None)
    return found


def _reward_length(run: Run) -> Figure:
    samples = _thin(list(range(1, len(run.samples) + 1)))
    traces, found = [], {}
    for model in run.models:
        length, reward = known(run.scores[model]["response_length"]), known(run.scores[model]["reward"])
        found[model] = fixed(correlation(length, reward), 2)
        traces.append(_trace("points", model, f"model.{model}", length, reward, samples=samples))
    cloud = Panel("axis.characters", "axis.reward", traces, Sentence("alt.reward-length", found))
    return Figure("reward-length", [cloud])


def _rm_groups(found: RewardModel) -> Figure:
    groups = [group for group in found.groups.values() if group.pairs]
    names = [f"pairs.{group.name}" for group in groups]
    bars = [
        _bar("muted" if group.name == "rule" else "rm", name, [name], [group.accuracy], counts=[group.pairs])
        for group, name in zip(groups, names, strict=True)
    ]
    guide = _trace("guide", "ink", "chart.chance", names, [0.5] * len(names))
    alt = {name: percent(group.accuracy.value) for name, group in found.groups.items()}
    options = SHARE | NAMES | {"no_legend": True}
    return Figure(
        "rm-groups", [Panel("axis.none", "axis.accuracy", [*bars, guide], Sentence("alt.rm-groups", alt), options)]
    )


def _rm_bins(found: RewardModel) -> Figure:
    accuracies = [band.group.accuracy for band in found.bins]
    confidence = [band.confidence for band in found.bins]
    measured = _bar("rm", "chart.measured", confidence, accuracies) | {"style": "measured"}
    measured["margins"] = [f"{fixed(band.low, 2)} … {fixed(band.high, 2)}" for band in found.bins]
    ideal = _trace("guide", "ink", "chart.ideal", [0.5, 1], [0.5, 1])
    values = [("first", found.bins[0]), ("last", found.bins[-1])]
    alt = {f"{name}_promised": percent(band.confidence) for name, band in values}
    alt |= {f"{name}_found": percent(band.group.accuracy.value) for name, band in values}
    panel = Panel("axis.confidence", "axis.accuracy", [measured, ideal], Sentence("alt.rm-bins", alt))
    return Figure("rm-bins", [panel._replace(options=SHARE | {"x_percent": True})])


def _rm_margins(found: RewardModel) -> Figure:
    margins = np.asarray(found.margins)
    bound = float(np.abs(margins).max()) or 1.0
    # an edge at zero, where right turns into wrong
    edges = np.linspace(-bound, bound, MARGIN_BARS + 1)
    counts, _ = np.histogram(margins, edges)
    share = [*(counts / len(margins)), 0.0]
    trace = _trace("outline", "rm", "chart.pairs", edges.tolist(), share)
    alt = Sentence("alt.rm-margins", {"median": fixed(float(np.median(margins)), 2)})
    panel = Panel("axis.margin", "axis.share", [trace], alt, SHARE | {"zero": True, "no_legend": True})
    return Figure("rm-margins", [panel])


def _bar(color: str, label: str, x: Sequence[Any], values: Sequence[Any], **more: Any) -> Trace:
    numbers = [value.value for value in values]
    low = [value.value - value.low for value in values]
    high = [value.high - value.value for value in values]
    return _trace("bar", color, label, x, numbers, below=_rounded(low), above=_rounded(high), **more)


def _trace(style: str, color: str, label: str, x: Sequence[Any], y: Sequence[float | None], **more: Any) -> Trace:
    return {"style": style, "color": color, "label": label, "x": _rounded(_thin(x)), "y": _rounded(_thin(y))} | more


def _thin(values: Sequence[Any]) -> list[Any]:
    """Every k-th value and the last one, so that at most `POINTS` + 1 are left."""
    every = math.ceil(len(values) / POINTS)
    if every <= 1:
        return list(values)
    kept = list(values[::every])
    return kept if (len(values) - 1) % every == 0 else [*kept, values[-1]]


def _rounded(values: Sequence[Any]) -> list[Any]:
    """Five significant digits: the last ones differ between processors, and the page's bytes may not."""
    return [_number(value) if isinstance(value, float) else value for value in values]


def _number(value: float) -> float | int | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() else float(f"{value:.5g}")
