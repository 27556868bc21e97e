"""How a stage's function is run: a user's mistake ends in one line, and what the run cost is noted beside the work.

Time and memory differ from run to run, so they go to the ignored work folder and never into a tracked file.
"""

import atexit
import errno
import functools
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from stages.runtime import atomic, parent, processes, resume
from stages.runtime.errors import UserError, printable

HINTS = {
    errno.ENOSPC: "free space",
    errno.EDQUOT: "free space",
    errno.EFBIG: "raise the limit on a file's size (`ulimit -f`)",
    errno.EACCES: "check its owner and rights",
    errno.EROFS: "write elsewhere",
    errno.ENAMETOOLONG: "name a shorter one",
}
DISK_FULL = ("No space left on device", "inline_container.cc")
"""What safetensors and `torch.save` say of it, which raise no OSError."""
P = ParamSpec("P")
R = TypeVar("R")


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Run a stage's function; a `UserError`, a missing file or a full disk becomes one `error: …` line and exit code 1.

    Set `COVID_DOCTOR_TRACEBACK=1` to see the whole traceback instead.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        parent.watch()
        _quiet()
        started = time.monotonic()
        try:
            result = function(*args, **kwargs)
            _note_cost(time.monotonic() - started)
            atexit.register(processes.leave)
            return result
        except UserError as error:
            message = str(error)
            cause: BaseException = error
        except FileNotFoundError as error:
            message = f"{error.filename}: no such file; run `dvc repro` to make what an earlier stage writes"
            cause = error
        except OSError as error:
            if error.errno not in HINTS:
                raise
            message = f"{str(error.filename or 'a write')[:300]}: {error.strerror}; {HINTS[error.errno]}, and run again"
            cause = error
        except Exception as error:
            if not any(text in str(error) for text in DISK_FULL):
                raise
            message = f"a file could not be written: is the disk full? Free space and run again ({error})"
            cause = error
        if os.environ.get("COVID_DOCTOR_TRACEBACK"):
            raise cause
        _end_bars()
        _tell(f"error: {printable(message)}")
        raise SystemExit(1)

    return run


def _tell(line: str) -> None:
    """Print the line; of several processes only the first does, if it has come to the same error."""
    if not processes.is_first():
        time.sleep(10)  # it ends meanwhile, and its launcher then ends this one
    print(line, file=sys.stderr, flush=True)
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")  # what torch's launcher shows as the cause in its summary
    if report:
        atomic.write_json(Path(report), {"message": {"message": line, "extraInfo": {"timestamp": int(time.time())}}})


def _quiet() -> None:
    """Leave only what a user can act on."""
    # PEFT 0.21 asks transformers 5.23 for a property by its old name.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    # Blocks of memory that can grow: as answers do, and with them keys and values, which would leave gaps otherwise.
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    # A log file gets a progress line now and then, a terminal a smooth bar.
    os.environ.setdefault("TQDM_MININTERVAL", "0.2" if sys.stderr.isatty() else "15")


def _end_bars() -> None:
    """End the line of every progress bar that is still open: an error begins a line of its own."""
    tqdm = sys.modules.get("tqdm")
    if tqdm is not None:
        for bar in list(tqdm.tqdm._instances):
            bar.close()


def costs() -> dict[str, dict[str, float]]:
    """What the last run of each stage cost: `seconds`, `cpu_seconds`, `peak_mib` and, with a GPU, `peak_gpu_mib` and
    `reserved_gpu_mib`."""
    return {path.stem: json.loads(path.read_text()) for path in sorted((resume.own_root() / "cost").glob("*.json"))}


def _note_cost(seconds: float) -> None:
    stage = os.environ.get("DVC_STAGE")
    if not stage or not processes.is_first():
        return
    unit = 1024 if sys.platform == "linux" else 1024**2
    cpu = round(time.process_time(), 1)
    cost = {
        "seconds": round(seconds, 1),
        "cpu_seconds": cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        cost["peak_gpu_mib"] = torch.cuda.max_memory_allocated() // 2**20
        cost["reserved_gpu_mib"] = torch.cuda.max_memory_reserved() // 2**20  # with the gaps that it can't use
    with suppress(OSError):  # the stage is done; it must not fail over a note
        atomic.write_json(resume.own_root() / "cost" / f"{stage}.json", cost)
