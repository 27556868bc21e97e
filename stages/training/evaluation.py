"""An evaluation whose means are over all held-out tokens or pairs, however they fall into batches and processes.

transformers' own eval_loss is a mean of batches' means: another batch size or number of processes changes it, and with
several processes the last batch is filled up with samples that were counted before.
"""

from collections.abc import Callable, Sequence
from typing import Any


def with_token_weighted_eval(trainer: type, names: Sequence[str], measure: Callable[[Any, Any], Any]) -> Any:
    """A subclass of the Trainer class `trainer` whose evaluation weights every token or pair alike.

    Args:
        names: what is measured, `loss` among them; logged as `eval_<name>`.
        measure: (model, a collated batch of b samples) → [b, 1 + len(names)]: each sample's weight, and its sums.
    """
    import torch
    from transformers.trainer_utils import EvalLoopOutput

    class WeightedEval(trainer):  # type: ignore[misc, valid-type]
        def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **more: Any) -> Any:
            self.model.eval()
            parts = []
            for batch in dataloader:
                with torch.no_grad(), self.compute_loss_context_manager():
                    measured = measure(self.model, self._prepare_inputs(batch))
                parts.append(
                    self.accelerator.gather_for_metrics(measured.double())
                )  # without what fills up the last batch
            every = torch.cat(parts)
            weight, *sums = every.sum(0).tolist()
            means = {f"{metric_key_prefix}_{name}": total / weight for name, total in zip(names, sums, strict=True)}
            return EvalLoopOutput(predictions=None, label_ids=None, metrics=means, num_samples=len(every))

    return WeightedEval
