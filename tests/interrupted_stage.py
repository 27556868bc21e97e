"""Runs stages so that they are killed at a chosen moment: `python interrupted_stage.py`, one JSON order per line.

Importing torch and trl costs seconds, so this process imports all once and forks a child for each run. A child that
meets its moment kills itself with SIGKILL: nothing is flushed, closed or cleaned up, as if somebody else had done it.
"""

import functools
import importlib
import json
import os
import signal
import sys
from pathlib import Path


def main() -> None:
    for name in (
        "torch",
        "datasets",
        "peft",
        "trl",
        "stages.base",
        "stages.sft",
        "stages.rm",
        "stages.ppo",
        "stages.rl.trainer",
        "stages.rl.checkpoint",
        "stages.generation.generate",
        "stages.models.chatglm",
    ):
        importlib.import_module(name)
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
    from trl import RewardTrainer, SFTTrainer  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            run(order)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run(order: dict) -> None:
    """Call a stage's function in this process, and never come back.

    Args:
        order: stage, arguments (paths as text), log (where stdout and stderr go), environment, and kill: null or
            [function, nth call, before | after | midway, maybe what the call is about].
    """
    code = 1
    try:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ |= order["environment"]
        if order["kill"]:
            set_trap(*order["kill"])
        stage = importlib.import_module(f"stages.{order['stage']}")
        stage.main(**{name: Path(path) for name, path in order["arguments"].items()})
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def set_trap(function: str, call: int, moment: str, about: str = "") -> None:
    """From now on the nth call of `module:name` kills this process before it, after it, or when it is half done.

    With `about`, only calls with an argument that contains this text count.
    """
    module, _, name = function.partition(":")
    *owners, name = name.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    original, calls = getattr(owner, name), 0

    @functools.wraps(original)
    def trap(*args, **kwargs):
        nonlocal calls
        calls += about == "" or any(about in str(argument) for argument in args)
        if calls != call:
            return original(*args, **kwargs)
        if moment == "midway" and name == "rmtree":
            files = sorted(p for p in Path(args[0]).rglob("*") if p.is_file())
            for path in files[: len(files) // 2]:
                path.unlink()
        elif moment != "before":
            original(*args, **kwargs)
            if moment == "midway":  # a file was written: leave half of it
                path = Path(next(a for a in (*args, *kwargs.values()) if isinstance(a, str | Path)))
                os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, trap)


if __name__ == "__main__":
    main()
