"""PPO against its naive twin, and what must hold of an update by itself."""

import json
import math

import pytest
import tiny_models
import torch
from accelerate import Accelerator
from naive_ppo import EOS, SEED, Naive
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel

from stages import ppo
from stages.generation import generate
from stages.generation.decoding import PLAIN
from stages.models import base_model, forward, reward, stack
from stages.models.lora import LoraConfig
from stages.rl import logprobs, reward_hacking
from stages.rl.config import PpoConfig
from stages.rl.rollouts import Rollouts
from stages.rl.trainer import Trainer
from stages.runtime import checkpoints
from stages.runtime.errors import UserError

torch.set_num_threads(1)
CONFIG = PpoConfig(
    resume_lora_training=False, total_episodes=24, batch_size=8, num_ppo_epochs=2, num_mini_batches=2,
    tokens_per_batch=40, normalization_samples=6, learning_rate=2e-3, lr_scheduler_type="cosine", warmup_ratio=0.34,
    max_grad_norm=0.5, max_source_length=64, min_response_length=5, max_response_length=9, temperature=0.8,
    local_rollout_forward_batch_size=3, merge_adapters_for_rollouts=True, lm_head_chunk=5,
    normalize_reward="standardize", reward_clip=1.5, missing_eos_penalty=0.7, whiten_rewards=True, kl_coef=0.1,
    kl_target=2.0, kl_horizon=100, early_stop_kl=None, cliprange=0.1, cliprange_value=0.1, vf_coef=0.3, gamma=0.97,
    lam=0.9, value_head_init="reward", save_steps=1, lora=LoraConfig(r=2, alpha=5, dropout=0.0),
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("models"))


@pytest.fixture
def new_trainer(folders, tmp_path):
    frozen_base = base_model.read(folders.base)

    def make(config=CONFIG, work=tmp_path, prompts=None):
        torch.manual_seed(SEED)
        model, policy, reference = ppo.build(frozen_base, folders.sft, folders.rm, config, None)
        return Trainer(
            model=model,
            policy=policy,
            reference=reference,
            reward_head=reward.load_head(folders.rm, None),
            prompts=prompts or [[7 + i] * i + [11 * i, 250 - i] for i in range(1, 6)],
            eos=EOS,
            pad=0,
            config=config,
            seed=SEED,
            accelerator=Accelerator(cpu=True),
            work=work,
        )

    return make


OTHER_CONFIG = {
    "resume_lora_training": True, "normalize_reward": "none", "reward_clip": None, "missing_eos_penalty": 0.0,
    "whiten_rewards": False, "kl_target": None, "value_head_init": "zero", "lr_scheduler_type": "constant",
    "merge_adapters_for_rollouts": False, "temperature": 1.0, "gamma": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("config", [CONFIG, CONFIG.replace(**OTHER_CONFIG)], ids=["new adapter", "resumed adapter"])
def test_every_number_is_the_naive_twins(new_trainer, folders, config, monkeypatch):
    trainer = new_trainer(config)
    naive = Naive(folders, trainer)
    seen = {}
    make_experience = trainer.make_experience

    def spy(rollouts):
        seen.update(rollouts=rollouts, experience=make_experience(rollouts))
        return seen["experience"]

    monkeypatch.setattr(trainer, "make_experience", spy)
    ended = clipped = 0.0
    for number in range(3):
        log = trainer.step()
        rows, expected = naive.update(number)
        assert seen["rollouts"].responses == [row["response"] for row in rows]
        assert seen["rollouts"].ended.tolist() == [row["ended"] for row in rows]
        for name in ("log_probs", "values", "advantages", "returns"):
            for i, row in enumerate(rows):
                found = getattr(seen["experience"], name)[i]
                torch.testing.assert_close(found[: len(row[name])], torch.tensor(row[name]), atol=1e-5, rtol=1e-5)
                assert not found[len(row[name]) :].any()
        assert {name: log[name] for name in expected} == pytest.approx(expected, abs=1e-5, rel=1e-5)
        ended, clipped = ended + sum(row["ended"] for row in rows), clipped + log["clip_fraction"]
    assert 0 < ended < 24 and clipped > 0, "the cases that differ must have come up"
    for parameter, expected in zip(trainer.trained.values(), naive.trained, strict=True):
        torch.testing.assert_close(parameter.flatten(), expected.flatten(), atol=1e-5, rtol=1e-5)


def test_the_first_ratio_is_1_and_the_reference_is_the_sft_model(new_trainer):
    trainer = new_trainer(CONFIG.replace(num_ppo_epochs=1, num_mini_batches=1, normalize_reward="none"))
    first = trainer.step()
    assert first["kl"] == pytest.approx(0, abs=1e-5) and first["kl_k3"] == pytest.approx(0, abs=1e-5)
    second = trainer.step()
    for row in (first, second):
        assert row["ratio"] == pytest.approx(1, abs=1e-6) and row["clip_fraction"] == 0
    assert second["kl"] > 1e-3


def test_a_first_ratio_that_is_not_1_ends_the_run(new_trainer, monkeypatch):
    trainer = new_trainer()
    make_experience = trainer.make_experience

    def disagree(rollouts):
        experience = make_experience(rollouts)
        return experience._replace(log_probs=experience.log_probs - 0.01)

    monkeypatch.setattr(trainer, "make_experience", disagree)
    with pytest.raises(RuntimeError, match=r"update 1: the first ratio is 1\.01"):
        trainer.step()


def test_a_mean_of_few_tokens_may_round_more_in_half_precision(new_trainer):
    trainer = new_trainer()
    assert trainer._ratio_tolerance(1) == 1e-3, "in float32 it may not"
    trainer.model.to(torch.bfloat16)
    assert [trainer._ratio_tolerance(tokens) for tokens in (4096, 256, 64)] == [0.05, 0.05, 0.1]


def test_a_constant_learning_rate_rises_first(new_trainer):
    trainer = new_trainer(CONFIG.replace(lr_scheduler_type="constant", warmup_ratio=0.67, learning_rate=0.001))
    updates = trainer.config.updates
    rates = [trainer.step()["learning_rate"] for _ in range(updates)]
    warmup = round(0.67 * updates)
    assert warmup > 1 and rates == pytest.approx([0.001 * min(1, (n + 1) / warmup) for n in range(updates)])


@pytest.mark.parametrize("resumed", [False, True])
def test_an_update_changes_the_policy_adapter_and_the_value_head_and_nothing_else(new_trainer, resumed):
    trainer = new_trainer(CONFIG.replace(resume_lora_training=resumed))
    before = {name: p.detach().clone() for name, p in trainer.model.state_dict().items()}
    trainer.step()
    changed = {name for name, p in trainer.model.state_dict().items() if not torch.equal(p, before[name])}
    adapter = {name for name in before if ".lora_" in name and ".ppo." in name}
    assert changed == adapter and len(adapter) == 2 * 2 * 7  # A and B, layers, projections
    assert set(trainer.trained) == adapter | {"value_head.weight", "value_head.bias"}
    assert {n for n, p in trainer.model.named_parameters() if p.requires_grad} == adapter
    assert trainer.value_head.weight.abs().sum() > 0


@pytest.mark.parametrize(("tokens", "chunk", "side_by_side"), [(1, 3, 4), (40, 7, 1), (60, 1000, 3)])
def test_the_token_budget_changes_nothing_but_the_passes(new_trainer, tokens, chunk, side_by_side):
    whole = new_trainer(CONFIG.replace(tokens_per_batch=10_000, lm_head_chunk=1000, local_rollout_forward_batch_size=8))
    parts = new_trainer(
        CONFIG.replace(tokens_per_batch=tokens, lm_head_chunk=chunk, local_rollout_forward_batch_size=side_by_side)
    )
    for _ in range(2):
        assert whole.step() == pytest.approx(parts.step(), abs=1e-5, rel=1e-5)
    for a, b in zip(whole.trained.values(), parts.trained.values(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=0)


def test_a_plan_keeps_to_its_budget_and_puts_like_lengths_together():
    counts = [5, 30, 7, 30, 2, 18, 200, 6]
    plan = forward.plan(counts, 64)
    assert plan == [[6], [1, 3], [5, 2, 7], [0, 4]]  # 200 alone; 2 × 30; 3 × 18; the rest
    assert forward.plan(counts, 64, rows=[4, 0, 6]) == [[6], [0, 4]]
    assert [len(rows) for rows in forward.plan(counts, 1)] == [1] * 8
    assert sorted(row for rows in forward.plan(counts, 40) for row in rows) == list(range(8))


PROMPTS = [[9, 8, 7], [30], [5, 6, 7, 8, 9, 10, 11, 12], [4, 4]]
RESPONSES = [[20, 21, 22, 3], [3], [], [50, 51, 3]]
"""Among them one that is EOS alone and one that is empty."""


def test_a_padded_row_is_the_row_alone(new_trainer):
    trainer = new_trainer()
    model, head = trainer.model, trainer.reward_head
    rollouts = Rollouts(PROMPTS, RESPONSES, torch.zeros(len(PROMPTS)))
    for tokens in (14, 100):
        plan = [*forward.plan(forward.lengths(PROMPTS, RESPONSES), tokens), []]  # and one that keeps step with others
        together = logprobs.rollout_log_probs(model, rollouts, plan, 0.8, 3, 0, head)
        scores = reward.score(model, head, PROMPTS, RESPONSES, 0, tokens, plan)
        for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
            batch = forward.to_batch([prompt], [response], pad=0, device=None)
            with torch.no_grad():
                alone = logprobs.response_log_probs(model, batch, 0.8, 100, head)
            for found, expected in zip(together, alone, strict=True):
                length = len(response)
                torch.testing.assert_close(found[i, :length], expected[0, :length], atol=1e-5, rtol=1e-5)
                assert not found[i, length:].any()
            assert scores[i] == pytest.approx(*reward.score(model, head, [prompt], [response], 0, 1), abs=1e-5)


def test_positions_that_are_learned_count_from_each_rows_own_start():
    # Rotary positions see distances alone, so that no number above would show it; learned positions would.
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=64, n_embd=16, n_layer=2, n_head=2)).eval()
    batch = forward.to_batch(PROMPTS, RESPONSES, pad=0, device=None)
    with torch.no_grad():
        found = logprobs.response_log_probs(model, batch, 0.8, 100).log_probs
        for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
            logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
            expected = (logits / 0.8).log_softmax(-1)[range(len(response)), response]
            torch.testing.assert_close(found[i, : len(response)], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("responses", [RESPONSES * 2, [[3]] * 8], ids=["some empty", "EOS alone"])
def test_an_empty_response_is_learnt_from_without_harm(new_trainer, responses, monkeypatch):
    trainer = new_trainer(CONFIG.replace(whiten_rewards=False))
    ended = torch.tensor([float(bool(r)) for r in responses])
    monkeypatch.setattr(trainer, "sample_rollouts", lambda: Rollouts(PROMPTS * 2, responses, ended))
    row = trainer.step()
    assert row["response_length"] == sum(map(len, responses)) / 8
    assert row["eos_rate"] == ended.mean().item()
    assert all(math.isfinite(value) for value in row.values())


def test_a_response_without_eos_is_charged_the_penalty(new_trainer):
    rewards = {}
    for penalty in (0.0, 0.7):
        trainer = new_trainer(CONFIG.replace(missing_eos_penalty=penalty, whiten_rewards=False))
        row = trainer.step()
        rewards[penalty] = row["reward"]
        assert 0 < row["eos_rate"] < 1
    assert rewards[0.0] - rewards[0.7] == pytest.approx(0.7 * (1 - row["eos_rate"]), abs=1e-5)


def test_only_response_positions_go_through_the_lm_head_and_in_chunks(new_trainer):
    trainer = new_trainer()
    rollouts = trainer.sample_rollouts()
    seen = []
    head = trainer.model.get_base_model().get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    trainer.make_experience(rollouts)
    assert sum(seen) == 2 * sum(map(len, rollouts.responses))  # the policy's and the reference's
    assert max(seen) <= CONFIG.lm_head_chunk


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda trainer: trainer.reward_head.weight, "`score` is not finite"),
        (lambda trainer: trainer.value_head.weight, "`values` is not finite"),
        (
            lambda trainer: next(p for n, p in trainer.trained.items() if "up_proj" in n),
            "the model's logits",
        ),
        (
            lambda trainer: (
                trainer.model.get_submodule("base_model.model.model.layers.0.mlp.up_proj").lora_B.sft.weight
            ),
            "the model's logits",
        ),
    ],
    ids=["reward head", "value head", "ppo adapter", "sft adapter"],
)
def test_what_is_not_finite_ends_the_run_by_name_and_keeps_the_checkpoint(new_trainer, tmp_path, spoil, name):
    trainer = new_trainer(CONFIG.replace(total_episodes=8))
    trainer.train()
    trainer.config = CONFIG
    with torch.no_grad():
        spoil(trainer).view(-1)[0] = math.nan
    with pytest.raises(UserError, match=f"ppo update 2: {name}"):
        trainer.step()
    assert checkpoints.latest(tmp_path) == tmp_path / "checkpoint-1"


def test_a_gradient_that_is_not_finite_ends_the_run(new_trainer):
    trainer = new_trainer()
    next(iter(trainer.trained.values())).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(UserError, match="ppo update 1: `gradient` is not finite"):
        trainer.step()


def test_no_operation_of_an_update_rounds_by_the_make_of_processor(new_trainer):
    """MKL's square root does (runtime/portable.py); the reciprocal one is torch's own."""
    names = set()

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            names.add(operation.overloadpacket.__name__)
            return operation(*args, **(kwargs or {}))

    trainer = new_trainer()
    with Names():
        trainer.step()
    assert "_fused_adamw_" in names
    assert not {"sqrt", "sqrt_", "_foreach_sqrt", "_foreach_sqrt_"} & names


def test_early_stop_kl_ends_the_run_before_it_learns_from_that_batch(new_trainer, tmp_path, capsys):
    trainer = new_trainer(CONFIG.replace(early_stop_kl=1e-3, learning_rate=5e-3))
    state = trainer.train()
    assert state.stopped_early and state.update == 2 and len(state.rows) == 2
    assert "ppo: stopped before update 2: the KL per response is" in capsys.readouterr().err
    assert state.rows[1]["learning_rate"] == 0 and state.rows[1]["policy_loss"] == 0
    again = new_trainer(CONFIG.replace(early_stop_kl=1e-3, learning_rate=5e-3))
    assert again.train() == state  # a finished state stays finished


def test_signs_of_hacking_are_told_once(new_trainer, monkeypatch, capsys):
    monkeypatch.setattr(reward_hacking, "signs", lambda rows, kl_target: f"{len(rows)} rows" if len(rows) > 1 else None)
    trainer = new_trainer()
    for _ in range(3):
        trainer.step()
    assert [line for line in capsys.readouterr().err.splitlines() if "warning" in line] == [
        "ppo: warning at update 2: 2 rows"
    ]


def test_a_checkpoint_gives_back_everything_that_changes(new_trainer, tmp_path):
    whole, torn = new_trainer(work=tmp_path / "whole"), new_trainer(work=tmp_path / "torn")
    whole.train()
    while torn.state.update < 2:
        torn.step()
    torn._save()
    generator = torch.get_rng_state()
    resumed = new_trainer(work=tmp_path / "torn")
    torch.manual_seed(999)
    rest = resumed.train()
    assert torch.equal(torch.get_rng_state(), generator)  # no draw of an update takes from it
    assert rest == whole.state and rest.kl_coef != CONFIG.kl_coef
    for name, p in whole.trained.items():
        assert torch.equal(p, resumed.trained[name]), name
        for key, moment in whole.optimizer.state[p].items():
            assert torch.equal(moment, resumed.optimizer.state[resumed.trained[name]][key]), (name, key)


def test_rollouts_do_not_depend_on_batch_order_or_merging(new_trainer):
    trainer = new_trainer()
    decoding = PLAIN
    prompts, keys = [[i] * (1 + i % 4) + [200 + i] for i in range(1, 10)], [f"key {i}" for i in range(9)]

    def answers(order, batch_size, merge):
        with stack.merged(trainer.model, only_if=merge):
            found = generate.generate(
                trainer.model, [prompts[i] for i in order], [keys[i] for i in order], decoding, 12, batch_size, EOS, 0
            )
            return {order[i]: answer for i, answer in found}

    expected = answers(range(9), 9, False)
    assert answers(range(9), 1, False) == expected
    assert answers([4, 8, 0, 2, 6, 1, 3, 7, 5], 4, True) == expected
    assert {a.ended for a in expected.values()} == {True, False}
    assert all((a.ids[-1] in EOS) == a.ended and not set(a.ids[:-1]) & set(EOS) for a in expected.values())


def test_a_models_own_sampling_habits_have_no_say(new_trainer, folders, monkeypatch):
    expected = new_trainer().sample_rollouts().responses
    habits = {"do_sample": True, "top_k": 1, "temperature": 0.1, "repetition_penalty": 5.0, "eos_token_id": 3}
    file = folders.base / "generation_config.json"
    before = file.read_text()
    file.write_text(json.dumps(habits))
    monkeypatch.setattr("stages.models.base_model.Base._check_files", lambda base: None)  # it would notice
    try:
        assert new_trainer().sample_rollouts().responses == expected
    finally:
        file.write_text(before)
