"""A benchmark on a GPU as a list of cases: one that was measured is kept, so that a run can be cut off and go on.

Each case's numbers go into a JSON file as soon as they are known. A run begins no case after eight minutes: run it
again for the rest. `--tiny` runs the same lines on small models on a CPU: a check of the code, whose numbers mean
nothing.
"""

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from stages.runtime import atomic, resume

SECONDS = 480
PEAKS = {
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100-SXM4-80GB": (312e12, 2.04e12),
    "A100": (312e12, 1.56e12),
    "L40S": (362e12, 0.864e12),
    "L4": (121e12, 0.3e12),
    "RTX 4090": (165e12, 1.01e12),
    "RTX 3090": (71e12, 0.936e12),
}
"""Dense bfloat16 FLOP/s and bytes/s, from the vendor's data sheets; a part of the device's name → both."""

Numbers = Mapping[str, Any]


class Session:
    """Args: name: of the benchmark, and of its file."""

    def __init__(self, name: str, about: str, argv: list[str] | None = None):
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.gpu.{name}", description=about)
        parser.add_argument("--tiny", action="store_true", help="small models on a CPU, to check the code")
        parser.add_argument(
            "--to", type=Path, default=resume.checkout() / ".work" / "gpu", help="folder of the results"
        )
        self.arguments = parser.parse_args(argv)
        self.tiny = self.arguments.tiny
        if not self.tiny and not torch.cuda.is_available():
            parser.error("there is no GPU; --tiny checks the code on a CPU")
        self.device = torch.device("cpu" if self.tiny else "cuda")
        self.folder = self.arguments.to / ("tiny" if self.tiny else "full")
        self.file, self.started = self.folder / f"{name}.json", time.monotonic()
        known = json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}
        here = device_name(self.device)
        if known and known["device"] != here:
            parser.error(f"{self.file} is from {known['device']}, and this is {here}: give another --to")
        self.cases: dict[str, dict[str, Any]] = known.get("cases", {})
        self.head = {"device": here, "torch": torch.__version__, "cuda": torch.version.cuda}

    def run(self, name: str, measure: Callable[[], Numbers]) -> None:
        """Measure a case, unless it is known or the time is up; one that does not fit the memory says so."""
        if name in self.cases or time.monotonic() - self.started > SECONDS:
            return
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        began = time.monotonic()
        try:
            found = dict(measure())
            if self.device.type == "cuda":
                found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
                found["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
        except torch.OutOfMemoryError:
            found = {"note": "out of memory"}
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        self.cases[name] = found
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(self.file, self.head | {"cases": self.cases})

    def end(self, wanted: int) -> None:
        """Print the table.

        Args:
            wanted: cases in all.
        """
        columns = list(dict.fromkeys(column for case in self.cases.values() for column in case))
        width = max(map(len, self.cases), default=4) + 2
        print(f"\n{self.head['device']}, torch {self.head['torch']}" + ", --tiny: no result" * self.tiny)
        print("".ljust(width) + "".join(column.rjust(max(len(column), 9) + 2) for column in columns))
        for name, case in self.cases.items():
            cells = (shown(case.get(column)).rjust(max(len(column), 9) + 2) for column in columns)
            print(name.ljust(width) + "".join(cells))
        print(f"\n{self.file}")
        if len(self.cases) < wanted:
            print(f"{len(self.cases)} of {wanted} cases: run it again for the rest")

    def seconds(self, work: Callable[[], Any], repeats: int = 3) -> float:
        """The least wall time of one call, after one to warm up."""
        work()
        best = float("inf")
        for _ in range(1 if self.tiny else repeats):
            began = self.now()
            work()
            best = min(best, self.now() - began)
        return best

    def now(self) -> float:
        """The time, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def peaks(self) -> tuple[float, float]:
        """FLOP/s and bytes/s: of the data sheet, or else as measured here."""
        return next((peak for part, peak in PEAKS.items() if part in str(self.head["device"])), None) or self.measured()

    def measured(self) -> tuple[float, float]:
        """FLOP/s of a bfloat16 product of square matrices, bytes/s of a copy (read and write)."""
        size, count = (64, 2**16) if self.tiny else (8192, 2**30)
        matrix = torch.randn(size, size, device=self.device).bfloat16()
        source = torch.zeros(count, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)
        return 2 * size**3 / self.seconds(lambda: matrix @ matrix), 2 * count / self.seconds(
            lambda: target.copy_(source)
        )


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name() if device.type == "cuda" else platform.machine()


def shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
