"""DPO (Rafailov et al. 2023, arXiv 2305.18290): the SFT model learns from the pairs themselves, without a reward model.

    python -m controls.dpo --help

The budget is the reward model's, whose section of params.yaml it takes: pairs, lengths, batches, epochs, learning rate;
the adapter is PPO's. SFT is added into the weights while the new adapter trains, and the reference is the model without
the new adapter: a trainer of transformers restores one active adapter only when it resumes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from controls import options
from stages import sft
from stages.models import base_model, stack
from stages.preference import pairs
from stages.preference.config import RmConfig
from stages.preference.reward_loss import MEASURED
from stages.rl.config import PpoConfig
from stages.runtime import atomic, params, processes, resume
from stages.runtime.command import command
from stages.text import held_out, records
from stages.text.encoding import Encoded
from stages.training import length_grouping, samples, trainer, weighted


class DpoConfig(params.Section):
    beta: Annotated[float, Field(gt=0, le=1000)] = 0.1
    """How strongly the policy is held to the SFT model."""


@command
def main(
    train: Annotated[Path, typer.Option(help="preference pairs (JSON lines)")],
    validate: Annotated[Path, typer.Option(help="held-out pairs; every other question's choose the checkpoint")],
    base: options.Base,
    sft_folder: Annotated[Path, typer.Option("--sft", help="folder of the sft adapter")],
    to: options.To,
    log: options.Log,
    params_file: options.Params,
    controls_params: Annotated[Path, typer.Option(help="parameters of the controls")],
) -> None:
    """Train a policy on the preference pairs."""
    seed = params.load(params_file, "seed", int)
    config = params.load(params_file, "rm", RmConfig)
    lora = params.load(params_file, "ppo", PpoConfig).lora
    beta = params.load(controls_params, "dpo", DpoConfig).beta
    training = records.read_pairs(train)
    choosing, _ = held_out.parts(records.read_pairs(validate))
    frozen_base = base_model.read(base)
    folders = stack.resolve(frozen_base, [sft_folder])
    processes.announce("dpo")
    trainer.share(config, frozen_base.model.dtype)

    parameters = [seed, config.model_dump(), lora.model_dump(), beta]
    with resume.folder("controls-dpo", parameters, [train, validate, base, sft_folder, Path(__file__)]) as state:
        from peft import get_peft_model
        from transformers import set_seed

        set_seed(seed)
        tokenizer = frozen_base.tokenizer()

        model = stack.load(frozen_base.causal_lm(), folders).merge_and_unload()
        model = get_peft_model(model, lora.fit(model, "ppo").config(task_type="CAUSAL_LM"))
        run = weighted.trainer(
            preference_loss(beta),
            ["loss", *MEASURED],
            step_weight=config.batch_size,
            model=model,
            args=trainer.arguments(config, frozen_base.model, seed, state),
            train_dataset=length_grouping.in_training_order(
                pairs.encode(tokenizer, training, config), pairs.rows_of, config, seed
            ),
            eval_dataset=length_grouping.by_length(pairs.encode(tokenizer, choosing, config), pairs.rows_of),
            data_collator=lambda batch: collate(batch, tokenizer.pad_token_id),
            callbacks=trainer.callbacks(state),
        )
        trainer.train(run, state)
        if not processes.is_first():
            return

        outcome = trainer.write_curves(run, log, len(training) / config.batch_size, MEASURED)
        sizes = {"train": len(training), "choosing": len(choosing)}
        atomic.write_json(log / "metrics.json", {"pairs": sizes, "beta": beta, **outcome})
        with atomic.folder(to) as folder:
            stack.save(run.model, "default", "dpo", frozen_base, folders, folder)


def collate(batch: Sequence[pairs.EncodedPair], pad: int) -> dict[str, Any]:
    """What SFT's loss reads, [2b, T]: all chosen answers, then all rejected ones."""
    rows = [(pair.prompt, pair.chosen) for pair in batch] + [(pair.prompt, pair.rejected) for pair in batch]
    return samples.collate([samples.EncodedSample(Encoded(prompt), Encoded(ids)) for prompt, ids in rows], pad)


def preference_loss(beta: float) -> weighted.Measure:
    """Gives [b, 4]: 1, DPO's loss, whether the pair is right, the margin (equation 7)."""

    def measure(model: Any, batch: dict[str, Any]) -> Any:
        import torch

        unwrapped = getattr(model, "module", model)  # of several processes
        with torch.no_grad(), unwrapped.disable_adapter():
            reference = -sft.answer_loss(unwrapped, batch)[:, 1]
        policy = -sft.answer_loss(model, batch)[:, 1]
        return losses(policy, reference, beta)

    return measure


def losses(policy: Any, reference: Any, beta: float) -> Any:
    """[b, 4] of the answers' log-probabilities, both [2b]: all chosen, then all rejected."""
    import torch

    chosen, rejected = (beta * (policy - reference)).chunk(2)
    margin = chosen - rejected
    loss = -torch.nn.functional.logsigmoid(margin)
    return torch.stack([torch.ones_like(loss), loss, (margin > 0).to(loss.dtype), margin], dim=1)


if __name__ == "__main__":
    typer.run(main)
