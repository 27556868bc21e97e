"""All hostile inputs: `python tests/fuzz/hostile.py --cases 10000 --seed 1`, which is `make fuzz`.

Seven of ten cases are data files, a quarter parameters, the rest model folders. None may end in a traceback, in more
than one line, in half a result, after ten seconds, or in a result that is silently another.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import typer

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import hostile_data  # noqa: E402
import hostile_folders  # noqa: E402
import hostile_params  # noqa: E402


def main(cases: int = 200, seed: int = 1) -> None:
    outcomes: Counter[str] = Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as kept:
        parameters = hostile_params.prepare(Path(kept, "params"))
        sound = hostile_folders.prepare(Path(kept, "models"))
        for case in range(cases):
            kind = ("data", "params", "folders")[0 if case % 20 < 14 else 1 if case % 20 < 19 else 2]
            with tempfile.TemporaryDirectory() as top:
                try:
                    outcome = one(kind, case, seed, Path(top), parameters, sound)
                except BaseException as error:
                    outcome = "FAILED"
                    print(f"{kind} {case} of seed {seed}: {type(error).__name__}: {str(error)[:500]}", file=sys.stderr)
                    if isinstance(error, KeyboardInterrupt):
                        raise
                outcomes[f"{kind} {outcome}"] += 1
    print(f"{cases} cases in {time.monotonic() - started:.0f} s: {dict(sorted(outcomes.items()))}")
    if any("FAILED" in outcome for outcome in outcomes):
        raise SystemExit(1)


def one(kind: str, case: int, seed: int, top: Path, parameters: bytes, sound: Path) -> str:
    if kind == "data":
        return hostile_data.run(case, seed, top)
    with hostile_data.alarm():
        if kind == "folders":
            return hostile_folders.run(case, seed, top, sound)
        with hostile_params.workplace(top):
            return hostile_params.run(case, seed, top, parameters)


if __name__ == "__main__":
    typer.run(main)
