"""Runs the base stage, one JSON order per line, under one hub: `python hub_stages.py`.

Which hub, cache and mode there is, huggingface_hub reads once when it is imported; so this process stands for one of
each, and many models are asked of it.
"""

import contextlib
import io
import json
import sys
import time
from pathlib import Path

from stages import base
from stages.models import base_model


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), file=out, flush=True)


def run(to: str, config: str, load_only: bool) -> dict:
    """Call the stage (unless `load_only`) and load the model that its folder names.

    Returns:
        code, stderr, seconds; and, if the model was loaded, its identity and one of its weights.
    """
    stderr, code, loaded = io.StringIO(), 0, {}
    folder = Path(to)
    started = time.monotonic()
    with contextlib.redirect_stderr(stderr):
        try:
            if not load_only:
                samples = folder / "samples"  # which no model but the built-in one reads
                base.main(samples, samples, folder / "base", folder / "log", Path(config))
            found = base_model.read(folder / "base")
            weight = found.causal_lm().get_input_embeddings().weight
            loaded = {"identity": found.identity, "weight": weight[0, 0].item(), "eos": found.tokenizer().eos_token}
        except SystemExit as error:
            code = error.code
    return loaded | {"code": code, "stderr": stderr.getvalue(), "seconds": time.monotonic() - started}


main()
