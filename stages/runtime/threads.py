"""How many threads compute on a CPU: as many as other processes leave idle.

The threads of a small model meet after every operation and spin while they wait for each other. Alone on the machine
that is quickest. But where another process takes the core of one of them, the others wait for the scheduler each time,
and a step can take more than ten times as long as on one thread. Threads that sleep while they wait
(OMP_WAIT_POLICY=PASSIVE) do not suffer, nor do they gain: they are as slow as one thread.
"""

import os
import time
from pathlib import Path

CPU_TIMES = Path("/proc/stat")
INTERVAL = 1.0
"""Seconds between two looks at the machine."""
SLACK = 0.3
"""Of a core: less than that taken by others is a machine at rest."""

_most: int | None = None
_before: tuple[float, float, float] | None = None


def most() -> int:
    """The number of threads that torch began with, which a busy machine does not change."""
    global _most
    if _most is None:
        import torch

        _most = torch.get_num_threads()
    return _most


def make_room() -> None:
    """Look at what other processes have used since the last look, and leave that many cores to them.

    Loops call it between their steps. It does nothing where `model.cpu_threads` or OMP_NUM_THREADS fixed the number.
    """
    global _before
    if most() == 1 or "OMP_NUM_THREADS" in os.environ or not CPU_TIMES.exists():
        return
    now = time.monotonic()
    if _before is not None and now - _before[0] < INTERVAL:
        return
    after = (now, busy_seconds(CPU_TIMES.read_text(encoding="ascii")), time.process_time())
    if _before is not None:
        elapsed, busy, own = (b - a for a, b in zip(_before, after, strict=True))
        import torch

        wanted = beside((busy - own) / elapsed, os.cpu_count() or 1, most())
        if wanted != torch.get_num_threads():
            torch.set_num_threads(wanted)
    _before = after


def beside(others: float, cores: int, most: int) -> int:
    """The number of threads for a machine of so many cores of which other processes use `others`."""
    return max(1, min(most, int(cores - others + SLACK)))


def busy_seconds(stat: str) -> float:
    """CPU seconds that all processes of the machine have used, from the text of /proc/stat (proc(5))."""
    user, nice, system, _, _, irq, softirq = map(int, stat.split("\n", 1)[0].split()[1:8])
    return float(user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
