"""Time and peak memory of this process: CPU time, or wall time where it uses a GPU.

The standard library only, so that importing it costs nothing.
"""

import json
import resource
import sys
import time
from typing import Any


def peak_mb() -> float:
    """The most memory that this process has held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


class Meter:
    """Marks the end of the imports; then one `update` per update or run; the result is one JSON line."""

    def __init__(self) -> None:
        self.imports_mb = peak_mb()
        self.seconds: list[float] = []
        self.tokens: list[float] = []
        self.found: dict[str, float] = {}
        """What `callback` saw."""
        self._since = 0.0

    def start(self) -> None:
        self._since = self.now()

    def now(self) -> float:
        torch = sys.modules.get("torch")
        if torch is None or not torch.cuda.is_initialized():
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def update(self, tokens: float) -> None:
        """An update is done, with `tokens` tokens sampled; the first one is a warm-up, which `report` leaves out."""
        now = self.now()
        self.seconds.append(now - self._since)
        self.tokens.append(tokens)
        self._since = now

    def callback(self) -> Any:
        """For a `transformers.Trainer`: the whole training is one update.

        `found` gets the mean loss of its steps, and how many positions went through the network, padding included.
        """
        from torch.nn import Embedding
        from transformers import TrainerCallback

        meter = self

        class Watch(TrainerCallback):  # type: ignore[misc]
            positions = 0

            def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
                words = next(module for module in model.modules() if isinstance(module, Embedding))
                words.register_forward_pre_hook(self.count)
                meter.start()

            def count(self, _: Any, inputs: Any) -> None:
                self.positions += inputs[0].numel()

            def on_train_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
                meter.update(0)
                losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
                meter.found = {"loss": sum(losses) / len(losses), "positions": self.positions}

        return Watch()

    def report(self, **more: Any) -> None:
        kept = slice(1, None) if len(self.seconds) > 1 else slice(None)
        seconds, tokens = self.seconds[kept], self.tokens[kept]
        result = {
            "seconds": sum(seconds),
            "seconds_per_update": sum(seconds) / len(seconds),
            "tokens_per_update": sum(tokens) / len(tokens),
            "imports_mb": self.imports_mb,
            "peak_mb": peak_mb(),
        }
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            result["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 1e6
        print(json.dumps(result | more))
