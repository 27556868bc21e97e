"""How far the design carries: PPO's memory per GPU and the least time of a sampled token, for 7B to 70B, computed.

    python -m benchmarks.scale

By replicas, each GPU holds the base whole and works on its own samples. Shared out (`model.fsdp`), it holds 1/n of the
blocks' matrices, and fetches every block anew for every pass; n are the GPUs of its machine, up to eight, and another
machine holds all of it once more:

held      matrices · bytes / n + (embeddings, LM head, norms) · bytes + two fetched blocks
adapters  24 bytes per trained weight (value, gradient, its flat copy and reduced copy, Adam's moments), 4 per frozen
the rest  the largest of sampling, scoring and learning, by `benchmarks.memory`, with the settings below
read      (weights + keys and values) / the memory's bandwidth: the least time of a token on a GPU that holds all
fetched   matrices · bytes · (n − 1) / n / the link inside a machine: the same, sharded

The bandwidths are assumptions, not measurements: an H100's by its data sheet, and what all-gathers are commonly seen to
reach over NVLink. Over a network of 12 GB/s (100 gigabits) a token would take 30 times as long as over NVLink, which is
why no layer crosses it.
"""

from dataclasses import dataclass

from benchmarks import memory
from benchmarks.memory import GIB, Shape
from stages.models.lora import LoraConfig
from stages.rl.config import PpoConfig

CARD = 80e9
MEMORY, NVLINK = 3.35e12, 350e9
"""Bytes per second."""
GPUS = (1, 8, 16)
MACHINE = 8
"""GPUs of one."""
BYTES = 2
LORA = LoraConfig(r=16, alpha=32, dropout=0.0, target_modules="all-linear")


@dataclass(frozen=True)
class Size:
    shape: Shape
    tied: bool
    """Whether the LM head is the embeddings."""

    @property
    def whole(self) -> int:
        """Parameters that every process holds in any case."""
        head = 0 if self.tied else self.shape.vocab * self.shape.hidden
        return self.shape.parameters - self.shape.matrices + head


# config.json of Qwen/Qwen2.5-7B, Qwen/Qwen3-14B, Qwen/Qwen3-32B, meta-llama/Llama-3.1-70B
SIZES = {
    "7B": Size(Shape(3584, 18944, 28, 28, 4, 128, 152064), False),
    "14B": Size(Shape(5120, 17408, 40, 40, 8, 128, 151936), False),
    "32B": Size(Shape(5120, 25600, 64, 64, 8, 128, 151936), False),
    "70B": Size(Shape(8192, 28672, 80, 64, 8, 128, 128256), False),
}
SETTINGS = {"batch_size": 64, "max_source_length": 512, "max_response_length": 128, "min_response_length": 128,
            "tokens_per_batch": 4096, "merge_adapters_for_rollouts": False, "lora": LORA}  # fmt: skip


def held(size: Size, count: int) -> int:
    """Bytes of weights on each of `count` GPUs of a machine that share the blocks out; with 1, all."""
    block = size.shape.matrices // size.shape.layers
    fetched = 2 * block if count > 1 else 0
    return (size.whole + size.shape.matrices // count + fetched) * BYTES


def ppo(size: Size, count: int) -> int:
    """The rest that PPO needs on each of `count` GPUs, which share each update's rows out."""
    model = memory.profiled("qwen3-1.7b")[0]  # bfloat16, recomputed
    rows = max(1, 64 // count)
    config = PpoConfig(**(SETTINGS | {"local_rollout_forward_batch_size": rows}))
    return sum(memory.ppo(size.shape, model, config, [LORA, LORA]).values())


def token(size: Size, count: int, shared: bool) -> float:
    """Seconds, at the least, of one token for each of this GPU's rows."""
    shape, rows = size.shape, max(1, 64 // count)
    cache = 2 * shape.layers * shape.kv_heads * shape.head_dim * BYTES * rows * (512 + 64)
    read = ((size.whole + shape.matrices) * BYTES + cache) / MEMORY
    if not shared:
        return read
    sharers = min(count, MACHINE)
    return max(read, shape.matrices * BYTES * (sharers - 1) / sharers / NVLINK)


def table() -> str:
    lines = [f"{'':<5}{'GPUs':>5}  {'base':<12}{'held, GiB':>10}{'PPO, GiB':>10}{'ms per token':>14}{'s per 128':>11}"]
    for name, size in SIZES.items():
        for count in GPUS:
            for shared in (False, True):
                if shared and count == 1:
                    continue
                weights = held(size, min(count, MACHINE) if shared else 1)
                total = weights + ppo(size, count)
                seconds = token(size, count, shared)
                said = f"{name:<5}{count:>5}  {'sharded' if shared else 'whole':<12}{weights / GIB:>10.1f}"
                if total > 0.9 * CARD:  # the rest is for what is not counted
                    lines.append(said + f"{total / GIB:>10.1f}  does not fit 80 GB")
                else:
                    lines.append(said + f"{total / GIB:>10.1f}{1e3 * seconds:>14.1f}{128 * seconds:>11.1f}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(table(), end="")
