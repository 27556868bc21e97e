"""Run stages one after the other: `torchrun … several_processes.py INPUTS OUTPUTS STAGE…`."""

import sys
from pathlib import Path

import tiny_run
from accelerate import PartialState

inputs, outputs = map(Path, sys.argv[1:3])
for stage in sys.argv[3:]:
    getattr(tiny_run, f"run_{stage}")(inputs, outputs)
    PartialState().wait_for_everyone()  # the first process has written what the next stage reads
