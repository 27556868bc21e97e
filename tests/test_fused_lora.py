"""LoRA's layers in fewer passes are PEFT's layers: the same results, gradients and exceptions."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear
from torch import nn

from stages.models.fused_lora import FusedLinear, fuse

torch.set_num_threads(1)
X = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 6), nn.Linear(6, 4, bias=False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def model(adapters, dropout=0.0):
    torch.manual_seed(1)
    found = get_peft_model(Two(), config(dropout), adapter_name=adapters[0])
    for name in adapters[1:]:
        found.add_adapter(name, config(dropout))
    found.base_model.set_adapter(adapters)
    return found.train()


def config(dropout):
    return LoraConfig(
        r=2, lora_alpha=3, target_modules=["first", "second"], init_lora_weights=False, lora_dropout=dropout
    )


def outcome(network, x=X):
    x = x.clone().requires_grad_()
    network.zero_grad()
    found = network(x)
    found.square().sum().backward()
    return found.detach(), x.grad, {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}


def kinds(network):
    return [type(m) for m in network.modules() if isinstance(m, Linear)]


@pytest.mark.parametrize("adapters", [["one"], ["one", "two"]])
def test_results_and_gradients_are_pefts(adapters):
    theirs, ours = model(adapters), fuse(model(adapters))
    assert kinds(theirs) == [Linear, Linear] and kinds(ours) == [FusedLinear, FusedLinear]
    torch.testing.assert_close(outcome(ours), outcome(theirs), rtol=1e-5, atol=1e-5)
    assert len(outcome(ours)[2]) == 4 * len(adapters)


def test_a_frozen_adapter_below_gets_no_gradient_and_passes_it_on():
    networks = model(["one", "two"]), fuse(model(["one", "two"]))
    for network in networks:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(".two." in name)
    theirs, ours = map(outcome, networks)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert len(ours[2]) == 4


def test_what_is_not_the_plain_case_is_left_to_peft():
    theirs, ours = model(["one"], dropout=0.5), fuse(model(["one"], dropout=0.5))
    for network in (theirs, ours):
        torch.manual_seed(2)
        network.found = network(X)
    assert torch.equal(ours.found, theirs.found), "dropout: the same draws"
    theirs, ours = model(["one"]), fuse(model(["one"]))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(X), theirs(X)), "autocast"
    for network in (theirs, ours):
        network.base_model.model.to(torch.bfloat16)
        for name, parameter in network.named_parameters():
            parameter.data = parameter.data.float() if "lora_" in name else parameter.data
    assert torch.equal(ours(X.bfloat16()), theirs(X.bfloat16())), "an adapter in float32 on a base in bfloat16"


def test_off_and_merged():
    theirs, ours = model(["one"]), fuse(model(["one"]))
    with theirs.disable_adapter(), ours.disable_adapter():
        assert torch.equal(ours(X), theirs(X))
    stacked = ours(X)
    merged = ours.merge_and_unload()
    assert not kinds(merged)
    torch.testing.assert_close(merged(X), stacked)
