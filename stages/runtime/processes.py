"""This process among those that a launcher started: on GPUs as accelerate finds them, else on the CPU.

The launcher's variables are read here and nowhere else; unlike accelerate they answer at once.
"""

import os
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from stages.runtime.errors import UserError

NVIDIA = Path("/dev/nvidiactl")
"""Is there where the driver of an NVIDIA GPU is loaded."""
PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: `predict` meets them only when it has answered its part."""
Found = TypeVar("Found")


def count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def count_here() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count()))


def is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def on_cpu() -> bool:
    """Whether to tell accelerate to use the CPU; untold, it takes several processes without a GPU for one each.

    Of GPUs only those of CUDA (and ROCm) count: Apple's has no float64, in which tokens are drawn and losses added up.
    """
    import torch
    from accelerate.utils import parse_flag_from_env  # `accelerate launch` sets it to `False`

    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()


def leave() -> None:
    """Leave the group of processes. At the interpreter's end its threads can abort a process whose work is done."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def announce(stage: str) -> None:
    """Say on what the stage runs, before anything else takes long.

    Raises:
        UserError: there is a GPU that torch can't use: the CPU would take days for what was meant for it.
    """
    import torch

    if on_cpu():
        reason = unusable_gpu()
        if reason:
            raise UserError(reason)
        where = f"the CPU, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() != 1)}"
    else:
        where = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    if is_first():
        several = f", {count()} processes" if count() > 1 else ""
        print(f"{stage}: runs on {where}{several}", file=sys.stderr)


def unusable_gpu() -> str | None:
    """Why torch does not use the NVIDIA GPU that is here, unless the user wants it so."""
    import torch
    from accelerate.utils import parse_flag_from_env

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if hidden or parse_flag_from_env("ACCELERATE_USE_CPU") or not NVIDIA.exists():
        return None
    if torch.version.cuda is None:
        why = f"torch {torch.__version__} was built without CUDA; install the build that requirements.lock names"
    else:
        try:
            torch.cuda.init()
            why = f"torch {torch.__version__} sees none of them"
        except (RuntimeError, AssertionError) as error:
            why = f"torch {torch.__version__}, built for CUDA {torch.version.cuda}, can't use it: {error}"
    return (
        f"there is an NVIDIA GPU, but {' '.join(why.split())}; to use the CPU all the same, set CUDA_VISIBLE_DEVICES=''"
    )


def device() -> Any:
    """This process's `torch.device`; joins the other processes."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu(), timeout=PATIENCE).device


def join() -> Any:
    """The `accelerate.Accelerator`: knows the device and the other processes."""
    from accelerate import Accelerator, InitProcessGroupKwargs

    return Accelerator(cpu=on_cpu(), kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])


def from_first(ask: Callable[[], Found]) -> Found:
    """What `ask` gives on the first process, on all of them; a UserError there is one on all of them.

    So what looks at the disk can't send processes different ways, to wait for each other for ever.
    """
    if count() == 1:
        return ask()
    reply: list[Any] = [None, None]
    if is_first():
        try:
            reply[0] = ask()
        except UserError as error:
            reply[1] = str(error)
    _group().broadcast_object_list(reply)
    if reply[1] is not None:
        raise UserError(reply[1])
    found: Found = reply[0]
    return found


def share(rows: Sequence[int], evenly: bool = False) -> list[int]:
    """This process's part of the rows, dealt like cards, so that rows in order of length give like parts.

    Args:
        evenly: where some would get one less, they get the first row once more: a divided base needs all of them.
    """
    own, most = list(rows[int(os.environ.get("RANK", "0")) :: count()]), -(-len(rows) // count())
    return [*own, rows[0]] if evenly and len(own) < most else own


def everyones(value: Found) -> list[Found]:
    """The values of all processes, in their order, on each of them; any object."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    _group().all_gather_object(found, value)
    return found


def wait_for_all() -> None:
    """Return once every process has come here."""
    if count() > 1:
        _group().barrier()


def _group() -> Any:
    """`torch.distributed`, once this process has joined the others; a Trainer's own accelerator stays as it is."""
    import torch.distributed as dist

    if not dist.is_initialized():
        join()
    return dist
