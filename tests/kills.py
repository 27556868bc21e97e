"""Kill `dvc repro` in every stage, as often as told; what recovers must end with the bytes of an undisturbed run.

    python tests/kills.py --kills 60 --seed 1

The profile `smallest`, in checkouts of their own. Each chain runs the pipeline once through and kills it three times in
each stage: twice at a random moment (`dvc` alone, the stage alone or all of them; mostly by SIGKILL, also by SIGTERM,
and all of them by Ctrl-C's SIGINT), and once when DVC writes dvc.lock after it. Then comes what `make repro` runs:
`stages.recover` and `dvc repro`, which is killed in turn. A process that outlives its `dvc`, a run that does not get
past what was left, another byte: each ends the soak with an error.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import yaml
from checkouts import at_work_in, copy_working_tree, run
from test_graph import MODULES

KILLED = {"dvc": (signal.SIGKILL, signal.SIGTERM), "stage": (signal.SIGKILL, signal.SIGTERM),
          "group": (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)}  # fmt: skip
"""What is killed, and how. While a stage runs, `dvc` alone ignores SIGINT: a terminal sends it to all."""
MOMENTS = ("any time", "any time", "dvc.lock")
"""Of each stage's kills in a chain. The last of them ends the stage."""
GRACE = 120.0
"""Seconds in which all of a killed run's processes must have ended: a busy machine takes long to notice."""
SHARE = 0.8
"""Of a stage's time, in which it is killed: one that goes on where it was ends sooner."""
ATTEMPTS = 3
"""Runs in a row that may fail without being killed: a stage that is killed alone fails its `dvc`."""


class Repro:
    """One `dvc repro` of a checkout, in a session of its own."""

    def __init__(self, checkout: Path) -> None:
        self.checkout, self.output = checkout, checkout.parent / "output"
        with self.output.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro"], cwd=checkout, stdin=subprocess.DEVNULL, stdout=file,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def stage(self) -> str | None:
        """The stage that was started last."""
        started = re.findall(r"^Running stage '([^']+)'", self.output.read_text(errors="replace"), re.M)
        return started[-1] if started else None

    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self, what: str, by: signal.Signals) -> bool:
        """False where there is no such process at the moment."""
        if what == "group":
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, by)
            for child in self.others():  # a stage has a group of its own in some shells
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(by)
            return True
        if what == "stage":
            stages = [child for child in self.others() if "stages." in " ".join(command_of(child))]
            for child in stages:
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(by)
            return bool(stages)
        self.process.send_signal(by)
        return True

    def others(self) -> list[psutil.Process]:
        """All processes that work in this checkout, but `dvc` itself and this one."""
        apart = (self.process.pid, os.getpid())
        return [each for each in psutil.process_iter() if each.pid not in apart and works_in(each, self.checkout)]

    def gone(self) -> bool:
        """Whether everything of this run ends in time."""
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            if self.ended() and not self.others():
                return True
            time.sleep(0.05)
        return False


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def works_in(process: psutil.Process, checkout: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == checkout
    except psutil.Error:
        return False


class Plan:
    """Which kills a chain has still to do.

    Args:
        seconds: how long each stage takes, undisturbed.
    """

    def __init__(self, seconds: dict[str, float], random_: random.Random) -> None:
        self.seconds, self.random = seconds, random_
        self.moments = {stage: list(MOMENTS) for stage in seconds}

    def wait(self, repro: Repro) -> tuple[str, str] | None:
        """Wait for the next moment to kill: its stage, and which kind it is; None when the run ends before."""
        lock = repro.checkout / "dvc.lock"
        stage, until, before = None, 0.0, stamp(lock)
        while not repro.ended():
            if (now := repro.stage()) != stage:  # it began, or one ended sooner than the moment came
                stage, before = now, stamp(lock)
                until = time.monotonic() + self.random.uniform(0, SHARE) * self.seconds[stage] if stage else 0.0
            if stage and self.moments[stage]:
                moment = self.moments[stage][0]
                if stamp(lock) != before if moment == "dvc.lock" else time.monotonic() > until:
                    return stage, moment
            time.sleep(0.001)
        return None


def stamp(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except FileNotFoundError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)


def own_cache(checkout: Path) -> None:
    (checkout / ".dvc/config.local").write_text(f"[cache]\n    dir = {checkout}/.dvc/cache\n", encoding="utf-8")


def contents(checkout: Path) -> dict[str, object]:
    """What a run leaves: its files, and each stage's entry in dvc.lock, which holds the hash of every out.

    An entry's place is left out, and so are entries of stages that are gone: a lock that was cut off is restored from
    the last commit, and what that one had stays in it.
    """
    lock = yaml.safe_load((checkout / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    patterns = ("reports/index.html", "reports/*.json", "reports/plots/*", "reports/answers/*", "models/*/*")
    files = [file for pattern in patterns for file in checkout.glob(pattern) if file.is_file()]
    return {f"dvc.lock: {name}": lock.get(name) for name in MODULES} | {
        str(file.relative_to(checkout)): file.read_bytes() for file in files
    }


def timed(checkout: Path) -> dict[str, float]:
    """Run the pipeline undisturbed: seconds per stage, its start and DVC's work after it included."""
    (checkout / "dvc.lock").unlink(missing_ok=True)
    with at_work_in(checkout):
        run("python -m stages.profile smallest", checkout)
        repro, began = Repro(checkout), {}
        while not repro.ended():
            if stage := repro.stage():
                began.setdefault(stage, time.monotonic())
            time.sleep(0.01)
    if repro.process.returncode:
        sys.exit(f"dvc repro fails undisturbed:\n{repro.output.read_text(errors='replace')[-3000:]}")
    ends = [*began.values(), time.monotonic()][1:]
    return {stage: end - start for (stage, start), end in zip(began.items(), ends, strict=True)}


def soak(kills: int, seed: int, folder: Path) -> Counter[str]:
    """Raises SystemExit with what went wrong first."""
    random_ = random.Random(seed)
    fresh, undisturbed, times = folder / "fresh", folder / "undisturbed" / "checkout", folder / "seconds.json"
    if not times.is_file():  # else a soak goes on that ended early
        copy_working_tree(fresh)  # once: whoever edits on meanwhile changes nothing
        shutil.copytree(fresh, undisturbed)
        own_cache(undisturbed)
        times.write_text(json.dumps(timed(undisturbed)))
    seconds = json.loads(times.read_text())
    expected = contents(undisturbed)
    print(f"undisturbed: {len(expected)} files and entries, {sum(seconds.values()):.0f} s", flush=True)
    counted: Counter[str] = Counter()
    chains = 0
    while counted["kills"] < kills:
        chains += 1
        checkout = folder / f"killed-{chains}" / "checkout"
        shutil.rmtree(checkout.parent, ignore_errors=True)
        shutil.copytree(fresh, checkout)
        own_cache(checkout)
        (checkout / "dvc.lock").unlink(missing_ok=True)
        with at_work_in(checkout):
            run("python -m stages.profile smallest", checkout)
            chain(checkout, kills, Plan(seconds, random_), counted)
        found = contents(checkout)
        different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        states = [path for path in (checkout / ".work").glob("*/*") if re.fullmatch(r"[0-9a-f]{16}(-\d+)?", path.name)]
        if different or states:
            sys.exit(f"chain {chains}: other bytes in {different}, unfinished states {states}; see {folder}")
        print(f"chain {chains}: the same bytes after {counted['kills']} kills so far", flush=True)
        shutil.rmtree(checkout.parent)
    return counted


def chain(checkout: Path, kills: int, plan: Plan, counted: Counter[str]) -> None:
    """Start the pipeline and kill it, until it gets through."""
    failures = 0
    while True:
        recovered = run("python -m stages.recover", checkout).strip()
        if recovered:
            counted["recovered"] += 1
            print(f"    {recovered}", flush=True)
        repro = Repro(checkout)
        killed = False
        while counted["kills"] < kills and not killed and (found := plan.wait(repro)):
            stage, moment = found
            what = "group" if moment == "dvc.lock" else plan.random.choice(list(KILLED))
            by = signal.SIGKILL if moment == "dvc.lock" else plan.random.choice(KILLED[what])
            killed = repro.kill(what, by)
        if killed:
            if not repro.gone():
                left = [command_of(each) for each in repro.others()]
                sys.exit(f"{by.name} of {what} in {stage}: still running after {GRACE:.0f} s: {left}")
            plan.moments[stage].pop(0)
            counted.update(["kills", f"in {stage}", f"of {what}", f"by {by.name}", f"at {moment}"])
            print(f"{counted['kills']:3} {by.name} of {what} in {stage}, at {moment}", flush=True)
            failures = 0
            continue
        code = repro.process.wait()
        if code == 0:
            return
        failures += 1
        if failures == ATTEMPTS:
            sys.exit(f"dvc repro fails by itself:\n{repro.output.read_text(errors='replace')[-3000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="of a soak that ended early: its undisturbed run serves again")
    arguments = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a job in the background ignores it, and so do its children
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="kills-"))).resolve()
    counted = soak(arguments.kills, arguments.seed, folder)
    shutil.rmtree(folder)
    print("; ".join(f"{name}: {count}" for name, count in sorted(counted.items())))


if __name__ == "__main__":
    main()
