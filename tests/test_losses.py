"""What SFT, the reward model and DPO minimise: TRL's losses and gradients, every token or pair weighing the same."""

from functools import partial

import pytest
import tiny_models
import torch
from peft import get_peft_model

from controls import dpo
from stages import sft
from stages.models import base_model, reward, stack
from stages.preference import batches, pairs
from stages.preference.reward_loss import reward_loss
from stages.text.encoding import Encoded
from stages.training import samples, weighted

PAD = 0
SAMPLES = [
    samples.EncodedSample(Encoded([*range(5, 5 + n - n // 2)]), Encoded([*range(5 + n - n // 2, 5 + n), 3]))
    for n in (4, 20, 9, 31, 12)
]
# a dialogue of three rounds
for question in ([8, 9, 10], [11, 12], [13, 14, 15, 16]):
    said = SAMPLES[-1].ids if len(SAMPLES) > 5 else []
    SAMPLES.append(samples.EncodedSample(Encoded([*said, *question]), Encoded([7] * len(question) + [3])))
PAIRS = [
    pairs.EncodedPair([*range(9, 9 + n)], [40 + n] * (n // 2) + [3], [7, 8, 9][: n % 4] + [3]) for n in range(3, 9)
]
# one question's three answers
PAIRS += [pairs.EncodedPair([5, 6, 7], [n] * n + [3], [m] * m + [3]) for n, m in ((6, 4), (6, 1), (4, 1))]


@pytest.fixture(scope="module")
def base(tiny_folders):
    return base_model.read(tiny_folders.base)


def adapted(base, task, merged=()):
    """A new adapter, whose weights are random, on the base and the adapters that are added into its weights."""
    torch.manual_seed(0)
    model = base.causal_lm() if task == "CAUSAL_LM" else reward.in_float32(base.reward_model())
    model = stack.load(model, merged).merge_and_unload() if merged else model
    model.config.pad_token_id = PAD
    lora = tiny_models.LORA.replace(dropout=0.0).config(
        task_type=task, init_lora_weights=False, modules_to_save=None if task == "CAUSAL_LM" else ["score"]
    )
    return get_peft_model(model, lora)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def trl_trainer(kind, config, model, rows, base, tmp_path):
    from datasets import Dataset

    args = config(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False, max_length=None,
                  activation_checkpointing=False, per_device_train_batch_size=len(rows))  # fmt: skip
    return kind(model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=base.tokenizer())


def test_sft_minimises_trls_loss(base, tmp_path):
    from trl import SFTConfig, SFTTrainer

    model = adapted(base, "CAUSAL_LM")
    weight, loss = sft.answer_loss(model, samples.collate(SAMPLES, PAD)).sum(0)
    ours = gradients(model, loss / weight)
    rows = [
        {"input_ids": s.prompt.ids + s.answer.ids, "labels": [-100] * len(s.prompt.ids) + s.answer.ids} for s in SAMPLES
    ]
    trainer = trl_trainer(SFTTrainer, SFTConfig, model, rows, base, tmp_path)
    theirs = trainer.compute_loss(model, next(iter(trainer.get_train_dataloader())))
    assert (loss / weight).item() == pytest.approx(theirs.item(), rel=1e-5)
    torch.testing.assert_close(gradients(model, theirs), ours, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("center", "kind"), [(0.0, batches.Together), (0.01, batches.Together), (0.01, batches.Apart)])
def test_the_reward_model_minimises_trls_loss(base, center, kind, tmp_path):
    from trl import RewardConfig, RewardTrainer

    model = adapted(base, "SEQ_CLS")
    found = reward_loss(center)(model, kind(PAD)(PAIRS))
    ours = gradients(model, found[:, 1].mean())
    rows = [{"chosen_ids": [*p.prompt, *p.chosen], "rejected_ids": [*p.prompt, *p.rejected]} for p in PAIRS]
    config = partial(RewardConfig, center_rewards_coefficient=center or None, disable_dropout=False)
    trainer = trl_trainer(RewardTrainer, config, model, rows, base, tmp_path)
    theirs = trainer.compute_loss(model, next(iter(trainer.get_train_dataloader())))
    assert found[:, 1].mean().item() == pytest.approx(theirs.item(), rel=1e-5)
    torch.testing.assert_close(gradients(model, theirs), ours, rtol=1e-4, atol=1e-6)


def test_answers_that_were_cut_to_the_same_tokens_score_the_same(base):
    model, same = adapted(base, "SEQ_CLS"), [pairs.EncodedPair([5, 6, 7], [8, 9], [8, 9])]
    alone = batches.Apart(PAD)(same)
    assert len(alone["halves"]) == 2, "the other processes, with more answers, make two passes"
    for batch in (batches.Together(PAD)(same), alone):
        chosen, rejected = batches.scores(model, batch)[0]
        assert chosen == rejected != 0


def test_dpo_minimises_trls_loss(base, tiny_folders, tmp_path):
    """The policy is that of `controls.dpo`; TRL's reference is a plain model, SFT multiplied out from the files."""
    from trl import DPOConfig, DPOTrainer

    beta = 0.4  # not TRL's default
    model = adapted(base, "CAUSAL_LM", [tiny_folders.sft])
    found = dpo.preference_loss(beta)(model, dpo.collate(PAIRS, PAD))
    ours = gradients(model, found[:, 1].mean())
    reference = tiny_models.multiply_out(base.causal_lm(), tiny_folders.sft)
    kind, config = partial(DPOTrainer, ref_model=reference), partial(DPOConfig, beta=beta)
    texts = [{"prompt": "发烧", "chosen": "多喝水", "rejected": "观察"}]  # this trainer can't be given token ids
    trainer = trl_trainer(kind, config, model, texts, base, tmp_path)
    rows = [{"prompt_ids": p.prompt, "chosen_ids": p.chosen, "rejected_ids": p.rejected} for p in PAIRS]
    theirs = trainer.compute_loss(model, trainer.data_collator(rows))
    assert found[:, 1].mean().item() == pytest.approx(theirs.item(), rel=1e-5)
    torch.testing.assert_close(gradients(model, theirs), ours, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("rows", "accumulation"), [(8, 1), (2, 4)])
def test_every_token_pulls_alike_in_whatever_batch_it_is(base, rows, accumulation, tmp_path):
    """Two steps of samples of very different lengths: the sum of their gradients is that of all samples together."""
    from transformers import TrainingArguments

    model = adapted(base, "CAUSAL_LM")
    order = sorted(SAMPLES * 2, key=lambda sample: len(sample.ids))
    weight, loss = sft.answer_loss(model, samples.collate(order, PAD)).sum(0)
    expected = gradients(model, loss / weight * 2)

    total = {name: torch.zeros_like(gradient) for name, gradient in expected.items()}

    class Sgd(torch.optim.SGD):
        def step(self, closure=None):
            for name, p in model.named_parameters():
                if p.requires_grad:
                    total[name] += p.grad

    trainer = weighted.trainer(
        sft.answer_loss, ["loss"], step_weight=weight.item() / 2, model=model,
        args=TrainingArguments(
            output_dir=str(tmp_path), report_to="none", use_cpu=True, max_grad_norm=0.0, num_train_epochs=1,
            per_device_train_batch_size=rows, gradient_accumulation_steps=accumulation, logging_steps=1,
            train_sampling_strategy="sequential", remove_unused_columns=False, disable_tqdm=True, save_strategy="no",
        ),
        train_dataset=order, data_collator=partial(samples.collate, pad=PAD),
        optimizers=(Sgd([p for p in model.parameters() if p.requires_grad], lr=0.1), None),
    )  # fmt: skip
    trainer.train()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-6)
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 2
    weights = [sum(len(sample.answer.ids) for sample in part) for part in (order[:8], order[8:])]
    mean = sum(a * b for a, b in zip(losses, weights, strict=True)) / sum(weights)
    assert mean == pytest.approx((loss / weight).item(), rel=1e-5), "what is logged is the mean over the tokens"


def test_the_evaluation_is_the_same_in_any_batch(base, tmp_path):
    from transformers import TrainingArguments

    model, found = adapted(base, "CAUSAL_LM"), []
    with torch.no_grad():
        weight, loss = sft.answer_loss(model, samples.collate(SAMPLES, PAD)).sum(0)
    for rows in (1, 3, 8):
        trainer = weighted.trainer(
            sft.answer_loss, ["loss"], step_weight=1.0, model=model,
            args=TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True, disable_tqdm=True,
                                   per_device_eval_batch_size=rows, remove_unused_columns=False),
            eval_dataset=SAMPLES, data_collator=partial(samples.collate, pad=PAD),
        )  # fmt: skip
        found.append(trainer.evaluate()["eval_loss"])
    assert found == pytest.approx([(loss / weight).item()] * 3, rel=1e-5)
