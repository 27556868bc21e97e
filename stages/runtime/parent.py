"""A stage ends with the `dvc` that started it: a killed `dvc` must not leave a trainer that writes beside the next one.

A shell or a launcher may be between the two, and no signal reaches a grandchild; so a thread checks every second.
"""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any


def watch() -> None:
    """Kill this process when one of the processes between it and its `dvc` is gone; run by hand it lives on."""
    if "DVC_STAGE" not in os.environ:
        return
    import psutil

    try:
        parents = psutil.Process().parents()
    except psutil.Error:  # hidden by the system, as on some clusters (`hidepid`)
        return
    depth = next((n for n, parent in enumerate(parents, start=1) if _is_dvc(parent)), 1)

    def look() -> None:
        while all(_is_alive(parent) for parent in parents[:depth]):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, daemon=True, name="parent-watch").start()


def _is_dvc(process: Any) -> bool:
    import psutil

    try:
        return any(Path(word).name == "dvc" for word in process.cmdline()[:3])
    except psutil.Error:  # gone, or another user's
        return False


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
