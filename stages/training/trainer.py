"""What base, sft and rm share of transformers' Trainer: its arguments, its curves, and a resume to the same bytes.

Samples are read front to back in an order that is fixed beforehand (length_grouping.py), so a trainer that is resumed
only has to skip; nothing of a sampler needs restoring. Several processes divide one step's samples among them.
"""

import functools
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.models import sharding
from stages.models.base_model import ModelConfig
from stages.runtime import checkpoints, curves, environment, live, processes
from stages.runtime.errors import UserError
from stages.training.config import TrainingConfig

SCHEDULERS = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""What transformers calls them: its `constant` has no warm-up."""


def share(config: TrainingConfig, dtype: str) -> tuple[int, int]:
    """Samples per forward pass, and passes per optimizer step, on each process; quick, before any weight is read.

    The global batch stays what it is. A pass takes as many samples as it would on one process, or fewer where the
    passes by themselves can't be shared out.

    Raises:
        UserError: the global batch can't be divided evenly among the processes, or their launcher asks for another
            precision.
    """
    count = processes.count()
    per_process, rest = divmod(config.batch_size, count)
    if rest:
        raise UserError(
            f"per_device_train_batch_size × gradient_accumulation_steps is {config.batch_size}, which {count} "
            "processes can't share evenly; make it a multiple of their number"
        )
    wanted = {"float16": "fp16", "bfloat16": "bf16"}.get(dtype, "no")
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launched not in ("no", wanted):
        raise UserError(
            f"accelerate was launched with mixed_precision {launched}, but params.yaml says model.dtype {dtype}; "
            "the parameter alone decides: set mixed_precision to `no`"
        )
    samples = next(n for n in range(config.per_device_train_batch_size, 0, -1) if per_process % n == 0)
    return samples, per_process // samples


def arguments(config: TrainingConfig, model: ModelConfig, seed: int, work: Path) -> Any:
    """The `transformers.TrainingArguments`.

    Raises:
        UserError: see `share`.
    """
    from transformers import TrainingArguments

    samples, passes = share(config, model.dtype)
    found = TrainingArguments(
        output_dir=str(work),
        seed=seed,
        num_train_epochs=1,  # the order of the samples already holds every epoch
        train_sampling_strategy="sequential",
        per_device_train_batch_size=samples,
        per_device_eval_batch_size=samples,
        gradient_accumulation_steps=passes,
        learning_rate=config.learning_rate,
        lr_scheduler_type=SCHEDULERS[config.lr_scheduler_type],
        warmup_steps=config.warmup_ratio,  # below 1 it is a share
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,  # it would hide a NaN loss
        eval_strategy="steps",
        eval_steps=config.eval_steps,
        save_strategy="steps",
        save_steps=config.eval_steps,
        save_total_limit=None,  # checkpoints.rotate, once the new one is sealed
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        # Either runs under autocast. On GPUs float16 also gets a loss scale that adapts; a CPU has none.
        fp16=model.dtype == "float16",
        bf16=model.dtype == "bfloat16",
        use_cpu=processes.on_cpu(),
        activation_checkpointing=model.gradient_checkpointing,
        # A fused optimizer takes the loss scale into its own kernel, and accelerate then sees no skipped step.
        optim="adamw_torch" if model.dtype == "float16" else "adamw_torch_fused",
        report_to="none",
        disable_tqdm=False,  # quiet logging would take the bar away
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,  # every adapter is used in every pass
    )
    # Left alone, a process that sees several GPUs would have them divide every batch, which is then as many times as
    # large.
    found._n_gpu = min(found.n_gpu, 1)
    return found


def show_progress(trainer: Any) -> None:
    """One bar with a rate and the newest losses, in place of a line per log entry."""
    from transformers.trainer_callback import ProgressCallback
    from transformers.utils.logging import set_tqdm_hook

    set_tqdm_hook(lambda bar, args, kwargs: bar(*args, **(kwargs | {"disable": True})))  # none for a checkpoint's files

    class Bar(ProgressCallback):  # type: ignore[misc]
        def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
            pass

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            live.note(logs or {}, state.global_step, state.max_steps)
            if self.training_bar is not None:
                shown = {key: f"{logs[key]:.4g}" for key in ("loss", "eval_loss") if key in logs}
                self.training_bar.set_postfix(shown, refresh=False)

    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Bar())


def callbacks(work: Path) -> list[Any]:
    """Evaluate after the last step too, seal each checkpoint that is whole and drop old ones, stop at a NaN loss."""
    from transformers import TrainerCallback

    class EvaluateAtTheEnd(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step >= state.max_steps:
                control.should_log = control.should_evaluate = True

    class Seal(TrainerCallback):  # type: ignore[misc]
        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            processes.wait_for_all()  # each of them writes its generators' state
            if state.is_world_process_zero:
                checkpoints.seal(work / f"checkpoint-{state.global_step}")
                checkpoints.rotate(work)

    class StopAtNaN(TrainerCallback):  # type: ignore[misc]
        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, optimizer: Any = None, **kwargs: Any
        ) -> None:
            for name in ("loss", "grad_norm", "eval_loss"):
                value = (logs or {}).get(name)
                if value is not None and not math.isfinite(value):
                    if name == "grad_norm" and overflowed(optimizer):
                        del logs[name]
                        state.log_history[-1].pop(name, None)  # a copy, from which the curve is made
                        continue
                    raise UserError(
                        f"step {state.global_step}: {name} is {value}. The checkpoint before it is kept; lower "
                        "learning_rate, or use bfloat16 or float32 instead of float16"
                    )

    class BestWhereItLies(TrainerCallback):  # type: ignore[misc]
        """transformers forgets the best checkpoint of a work folder that was moved: it records the absolute path."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.best_global_step:
                state.best_model_checkpoint = str(work / f"checkpoint-{state.best_global_step}")

    return [EvaluateAtTheEnd(), Seal(), StopAtNaN(), BestWhereItLies()]


def overflowed(optimizer: Any) -> bool:
    """Whether float16's loss scale was too large for this step, which was skipped and halved it.

    The first steps search for the scale this way. At a scale below 1 it is not an overflow: a gradient itself is not
    finite.
    """
    scaler = getattr(optimizer, "scaler", None)
    return scaler is not None and bool(optimizer.step_was_skipped) and scaler.get_scale() >= 1


def train(trainer: Any, work: Path) -> None:
    """Train from the newest whole checkpoint, or from the start; then the best checkpoint's weights are loaded."""
    show_progress(trainer)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:  # whatever the precision of the base
            parameter.data = parameter.data.float()
    if sharding.is_sharded(trainer.model):
        sharding.average_gradients(trainer)
    if hasattr(trainer.model, "load_adapter"):  # left alone, PEFT would bring each process's weights to the first GPU
        trainer.model.load_adapter = functools.partial(trainer.model.load_adapter, torch_device="cpu")
    newest = processes.from_first(lambda: checkpoints.latest(work))
    trainer.train(resume_from_checkpoint=str(newest) if newest else None)


CURVE = ("step", "epoch", "loss", "grad_norm", "learning_rate")
EVAL_CURVE = ("step", "epoch", "eval_loss")


def write_curves(trainer: Any, log: Path, steps_per_epoch: float, measured: Sequence[str] = ()) -> dict[str, Any]:
    """Write the curves and the environment into the folder `log`; returns what goes into the metrics of every run.

    Args:
        steps_per_epoch: to count epochs of the data, of which the trainer knows nothing.
        measured: columns beside those of every run; in the evaluation's curve they begin with `eval_`.
    """
    columns, eval_columns = (*CURVE, *measured), (*EVAL_CURVE, *(f"eval_{name}" for name in measured))

    def rows(key: str, names: Sequence[str]) -> list[dict[str, Any]]:
        found = []
        for entry in trainer.state.log_history:
            if key in entry:
                row = {name: entry[name] for name in names if name in entry}
                found.append(row | {"step": entry["step"], "epoch": entry["step"] / steps_per_epoch})
        return found

    curve, evals = rows("loss", columns), rows("eval_loss", eval_columns)
    curves.write(log / "curve.csv", columns, curve)
    curves.write(log / "eval_curve.csv", eval_columns, evals)
    environment.write(log)
    best = min(evals, key=lambda row: row["eval_loss"])  # the first of equals: the checkpoint that was kept
    return {
        "steps": trainer.state.global_step,
        "best_step": best["step"],
        "eval_loss": round(best["eval_loss"], 4),
        "train_loss": round(curve[-1]["loss"], 4),
    }
