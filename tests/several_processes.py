"""Run sft, rm, ppo and predict one after the other: `torchrun … several_processes.py FOLDER PARAMS DATA`."""

import sys
from pathlib import Path

from stages import ppo, predict, rm, sft

to, config, data = map(Path, sys.argv[1:])
base = data / "base"
sft.main(
    data / "train.jsonl", data / "validate.jsonl", base, to / "sft", to / "sft.csv", to / "sft_eval.csv",
    to / "sft.json", config,
)  # fmt: skip
rm.main(
    data / "preferences_train.jsonl", data / "preferences_validate.jsonl", base, to / "rm", to / "rm.csv",
    to / "rm_eval.csv", to / "rm.jsonl", to / "rm.json", config,
)  # fmt: skip
# From one sft and rm for all, so that a difference of theirs in the last digit can't grow here.
ppo.main(data / "train.jsonl", base, data / "sft", data / "rm", to / "ppo", to / "ppo.csv", to / "ppo.json", config)
predict.main(
    "sft", data / "test.jsonl", base, to / "predict.jsonl", to / "scores.jsonl", to / "predict.json", config,
    [data / "sft"],
)  # fmt: skip
