"""A Trainer whose loss, logged means and evaluation weight every token (or pair) alike, however it is batched.

transformers divides each optimizer step's loss by the step's own tokens, so that a token in a batch of short answers
counts for more than one in a batch of long answers; with batches of like length that is a factor near 2. Its eval_loss
is a mean of batches' means, which depends on the batch size and counts samples twice that fill up a last batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

Measure = Callable[[Any, Any], Any]
"""(model, a collated batch of b samples) → [b, 1 + names]: each sample's weight, then its sums, the loss first."""


def trainer(measure: Measure, names: Sequence[str], step_weight: float, **arguments: Any) -> Any:
    """A `transformers.Trainer` that minimises the sum of `measure`'s losses, divided by `step_weight`.

    Args:
        names: what is measured, `loss` first; logged under these names, in the evaluation as `eval_<name>`.
        step_weight: what the samples of an optimizer step weigh on average; one number for all steps.
        arguments: of `transformers.Trainer`.
    """
    import torch
    from transformers import Trainer
    from transformers.trainer_utils import EvalLoopOutput

    class WeightedTrainer(Trainer):  # type: ignore[misc]
        loss_is_scaled_for_ga = True  # transformers' word for: not to be divided by the number of forward passes

        def __init__(self, **arguments: Any):
            super().__init__(**arguments)
            self.sums = torch.zeros(1 + len(names), dtype=torch.float64, device=self.args.device)

        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            measured = measure(model, inputs)
            self.sums += measured.detach().double().sum(0)
            # several processes average their gradients, which are to be added up
            return measured[:, 1].sum() * (self.accelerator.num_processes / step_weight)

        def log(self, logs: dict[str, float], *more: Any) -> None:
            if "loss" in logs:
                logs |= self._means(self.accelerator.reduce(self.sums, reduction="sum"))
                self.sums.zero_()
            super().log(logs, *more)

        def evaluation_loop(self, dataloader: Any, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> Any:
            self.model.eval()
            parts = []
            for batch in dataloader:
                with torch.no_grad(), self.compute_loss_context_manager():
                    measured = measure(self.model, self._prepare_inputs(batch))
                # without the samples that fill up the last batch of several processes
                parts.append(self.accelerator.gather_for_metrics(measured.double()))
            everyone = torch.cat(parts)
            metrics = {f"{metric_key_prefix}_{name}": mean for name, mean in self._means(everyone.sum(0)).items()}
            return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(everyone))

        def _means(self, sums: Any) -> dict[str, float]:
            weight, *totals = sums.tolist()
            return {name: total / weight for name, total in zip(names, totals, strict=True)}

    return WeightedTrainer(**arguments)
