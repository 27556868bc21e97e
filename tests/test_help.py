"""Every command answers `--help` at once."""

import subprocess
import sys

import pytest
from parameters import ROOT


@pytest.mark.parametrize("stage", sorted(path.stem for path in (ROOT / "stages").glob("[!_]*.py")))
def test_help_is_quick(stage: str) -> None:
    """`--help` of a stage does no more than import it: nothing that takes seconds may come along."""
    code = f"import sys, stages.{stage}; print(*{{'torch', 'transformers', 'plotly', 'jieba'}} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    assert done.stdout.split() == []
