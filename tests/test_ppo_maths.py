"""The formulas of PPO against numbers worked out by hand."""

import math

import pytest
import torch
from torch import tensor

from stages.rl import maths, stats


def close(found, expected, atol=1e-6):
    torch.testing.assert_close(
        found, tensor(expected) if not torch.is_tensor(expected) else expected, atol=atol, rtol=0
    )


def test_log_probs_and_entropy_divide_the_logits_by_the_temperature():
    # softmax([2 ln 3, 0] / 2) = [3/4, 1/4]
    logits = tensor([[2 * math.log(3), 0.0]] * 2)
    log_probs, entropy = maths.log_probs_and_entropy(logits, tensor([0, 1]), temperature=2.0)
    close(log_probs, [math.log(0.75), math.log(0.25)])
    close(entropy, [-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))] * 2)


def test_token_rewards_charge_the_kl_and_put_the_score_on_the_last_token():
    kl = tensor([[1.0, 2.0, 9.0], [3.0, -1.0, 0.5], [9.0, 9.0, 9.0]])
    mask = tensor([[1.0, 1, 0], [1, 1, 1], [0, 0, 0]])
    found = maths.token_rewards(kl, tensor([10.0, 20.0, 30.0]), mask, kl_coef=0.1)
    close(found, [[-0.1, 9.8, 0.0], [-0.3, 0.1, 19.95], [0.0, 0.0, 0.0]])


def test_gae_bootstraps_zero_after_the_end():
    # γ 0.5, λ 0.5. Row 0: δ2 = 4 − 2, δ1 = 1 + 0.5·2 − 1, δ0 = 0 + 0.5·1 − 3; A = δ + 0.25 · the next A.
    # Row 1 ends after two tokens: what stands behind it, in rewards or values, has no say.
    rewards, values = tensor([[0.0, 1.0, 4.0], [2.0, 6.0, 99.0]]), tensor([[3.0, 1.0, 2.0], [1.0, 4.0, 99.0]])
    mask = tensor([[1.0, 1, 1], [1, 1, 0]])
    advantages, returns = maths.gae(rewards, values, mask, gamma=0.5, lam=0.5)
    close(advantages, [[-2.125, 1.5, 2.0], [3.5, 2.0, 0.0]])
    close(returns, [[0.875, 2.5, 4.0], [4.5, 6.0, 0.0]])


def test_gae_with_lambda_1_is_the_reward_to_come():
    advantages, returns = maths.gae(tensor([[1.0, 2.0, 3.0]]), tensor([[7.0, 8.0, 9.0]]), torch.ones(1, 3), 1.0, 1.0)
    close(returns, [[6.0, 5.0, 3.0]])
    close(advantages, [[-1.0, -3.0, -6.0]])


def test_whiten_leaves_what_is_masked_at_zero():
    x, mask = tensor([[1.0, 3.0, 100.0]]), tensor([[1.0, 1.0, 0.0]])
    close(maths.whiten(x, mask, tensor(2.0), tensor(1.0)), [[-1.0, 1.0, 0.0]])
    close(maths.whiten(x, mask, tensor(2.0), tensor(4.0), shift_mean=False), [[1.5, 2.5, 0.0]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.5, 2.0, -2.4, 0.0, 1.0),  # better and already likelier: held at 1.2
        (0.5, 2.0, -1.0, -1.0, 0.0),  # better but less likely: pulled up
        (1.5, -2.0, 3.0, 3.0, 0.0),  # worse but likelier: pushed down
        (0.5, -2.0, 1.6, 0.0, 1.0),  # worse and already less likely: held at 0.8
        (1.1, 2.0, -2.2, -2.2, 0.0),
    ],
)
def test_policy_loss_in_each_clip_case(ratio, advantage, loss, gradient, clipped):
    log_probs = tensor([[math.log(ratio), 5.0]], requires_grad=True)
    zero, mask = torch.zeros(1, 2), tensor([[1.0, 0.0]])
    found = maths.losses(log_probs, zero, tensor([[advantage, 7.0]]), zero, zero, zero, mask, 0.2, 0.2)
    close(found.policy.detach(), loss)
    close(found.clipped, clipped)
    close(found.ratio.detach(), ratio)
    close(found.approx_kl.detach(), ratio - 1 - math.log(ratio))
    found.policy.backward()
    close(log_probs.grad, [[gradient, 0.0]])


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient"),
    [
        (0.1, 1.0, 0.405, -0.9),  # near the old value: the plain squared error
        (0.5, 1.0, 0.32, 0.0),  # moved past the clip towards the target: held at 0.2
        (0.5, 0.0, 0.125, 0.5),  # moved away from the target: the plain error is the larger
    ],
)
def test_value_loss_in_each_clip_case(value, target, loss, gradient):
    values, zero, mask = tensor([[value, 9.0]], requires_grad=True), torch.zeros(1, 2), tensor([[1.0, 0.0]])
    found = maths.losses(zero, zero, zero, values, zero, tensor([[target, 1.0]]), mask, 0.2, 0.2).value
    close(found.detach(), loss)
    found.backward()
    close(values.grad, [[gradient, 0.0]])


def test_k3_is_never_negative_and_its_mean_is_the_kl():
    p, q = tensor([0.5, 0.3, 0.2]), tensor([0.2, 0.3, 0.5])
    each = maths.k3((q / p).log())
    assert each.min() >= 0
    close((p * each).sum(), float((p * (p / q).log()).sum()))
    close(maths.k3(tensor(math.log(2.0))), 1 - math.log(2))


@pytest.mark.parametrize(("kl", "expected"), [(6.6, 0.202), (60.0, 0.204), (0.0, 0.196), (6.0, 0.2)])
def test_the_kl_coefficient_follows_an_error_clipped_to_a_fifth(kl, expected):
    assert maths.adapt_kl_coef(0.2, kl, target=6.0, horizon=1000, samples=100) == pytest.approx(expected)


def test_cosine_rises_then_falls_to_zero():
    shares = [maths.cosine(step, steps=6, warmup=2) for step in range(7)]
    assert shares == pytest.approx([0.5, 1.0, 1.0, 0.5 * (1 + 2**-0.5), 0.5, 0.5 * (1 - 2**-0.5), 0.0])
    assert maths.cosine(0, 1, 0) == 1.0


def test_repetition_counts_what_was_said_before():
    assert stats.repetition([1, 2, 3]) == 0.0
    assert stats.repetition([1, 2, 3, 4, 5]) == 0.0
    assert stats.repetition([7] * 13) == pytest.approx(0.9)
    assert stats.repetition([1, 2, 1, 2, 1], order=2) == 0.5


def test_correlation():
    assert stats.correlation(tensor([1.0, 2.0, 3.0]), tensor([2.0, 4.0, 6.0])) == pytest.approx(1.0)
    assert stats.correlation(tensor([1.0, 2.0, 3.0]), tensor([1.0, 0.0, 1.0])) == pytest.approx(0.0)
    assert stats.correlation(tensor([1.0, 2.0, 3.0]), tensor([3.0, 1.0, 2.0])) == pytest.approx(-0.5)
    assert stats.correlation(tensor([5.0, 5.0]), tensor([1.0, 2.0])) == 0.0
