"""Run every stage, one after the other, and the export: `python chatglm_pipeline.py FOLDER PARAMS`."""

import sys
from pathlib import Path

from stages.serving.stack_names import Name

from stages import base, export, ppo, predict, preprocess, report, rm, score, sft

to, config = map(Path, sys.argv[1:])
data, models, curves, metrics = to / "data", to / "models", to / "curves", to / "metrics"
predictions, scores = to / "predictions", to / "scores"
train, validate, test = (data / f"{name}.jsonl" for name in ("train", "validate", "test"))
adapters = {"base": [], "sft": [models / "sft"], "ppo": [models / "sft", models / "ppo"]}

preprocess.main(
    to / "train_data.json", to / "validate_data.json", to / "test_data.json", to / "preferences.json", data,
    metrics / "data.json", config,
)  # fmt: skip
base.main(
    train, validate, models / "base", curves / "base.csv", curves / "base_eval.csv", metrics / "train_base.json", config
)
sft.main(
    train, validate, models / "base", models / "sft", curves / "sft.csv", curves / "sft_eval.csv",
    metrics / "train_sft.json", config,
)  # fmt: skip
rm.main(
    data / "preferences_train.jsonl", data / "preferences_validate.jsonl", models / "base", models / "rm",
    curves / "rm.csv", curves / "rm_eval.csv", scores / "rm.jsonl", metrics / "train_rm.json", config,
)  # fmt: skip
ppo.main(
    train, models / "base", models / "sft", models / "rm", models / "ppo", curves / "ppo.csv",
    metrics / "train_ppo.json", config,
)  # fmt: skip
for name, folders in adapters.items():
    predict.main(
        name, test, models / "base", predictions / f"{name}.jsonl", scores / f"{name}.jsonl", metrics / f"{name}.json",
        config, folders,
    )  # fmt: skip
score.main(
    test, predictions, list(adapters), models / "base", models / "rm", adapters["ppo"], scores / "reward.jsonl",
    metrics / "reward.json", metrics / "lineage.json", config,
)  # fmt: skip
report.main(
    predictions, scores, metrics, curves, to / "index.html", to / "summary.md", to / "metrics.json", to / "plots",
    config,
)  # fmt: skip
export.main(to / "doctor", Name.ppo, models / "base", models / "sft", models / "ppo", config, metrics)
