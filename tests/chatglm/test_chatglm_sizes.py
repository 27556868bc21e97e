"""Models of other sizes against the specification written out, one unpadded row at a time."""

import pytest
import specification
import torch
from chatglm_cases import close

from stages.models.chatglm.configuration import ChatGLMConfig
from stages.models.chatglm.modeling import ChatGLMForCausalLM, positions_of

pytestmark = pytest.mark.slow

SIZES = {
    "one layer, one head of 4": {"num_layers": 1, "num_attention_heads": 1, "hidden_size": 4},
    "three heads of 12, odd sizes": {
        "num_layers": 2, "num_attention_heads": 3, "hidden_size": 36, "inner_hidden_size": 50, "vocab_size": 101
    },
    "five layers": {"num_layers": 5, "num_attention_heads": 2, "hidden_size": 16},
    "ids 20000 higher, in small": {
        "num_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "vocab_size": 150, "bos_token_id": 140,
        "eos_token_id": 141, "gmask_token_id": 139, "mask_token_id": 138, "pad_token_id": 0
    },
}  # fmt: skip


@pytest.fixture(params=list(SIZES.values()), ids=list(SIZES))
def sized(request):
    """A random model, and rows of five lengths: [gMASK], [MASK] amid the context, both, a border at 1, a long one."""
    ids = {"bos_token_id": 94, "eos_token_id": 95, "gmask_token_id": 91, "mask_token_id": 90, "vocab_size": 96}
    config = ChatGLMConfig(**{"initializer_range": 0.3, "max_sequence_length": 64} | ids | request.param)
    torch.manual_seed(7)
    model = ChatGLMForCausalLM(config).eval()
    for name, p in model.named_parameters():  # LayerNorms and biases too
        p.data = torch.randn_like(p) * 0.3 + ("layernorm.weight" in name)
    g, m, sop = config.gmask_token_id, config.mask_token_id, config.bos_token_id
    rows = [[7, 8, 9, g, sop, 20], [7, m, 8, 9, sop], [m, 7, g, sop, 30, 31, 32], [g, sop],
            [*range(5, 28), g, sop, 40, 41, sop, 43]]  # fmt: skip
    return model, rows


def written_out(model, row):
    config = model.config
    channels = specification.positions(row, config.bos_token_id, config.gmask_token_id, config.mask_token_id)
    return channels, specification.hidden_states(dict(model.state_dict()), config.num_attention_heads, row, channels)


@pytest.mark.parametrize("side", ["left", "right"])
def test_other_sizes_in_one_batch(sized, side):
    model, rows = sized
    pad = model.config.pad_token_id
    batch = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=pad, padding_side=side
    )
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones(len(row)).long() for row in rows], batch_first=True, padding_side=side
    )
    labels = batch.where((mask.cumsum(1) * mask > 1) & (torch.arange(batch.shape[1]) % 2 == 0), -100)
    with torch.no_grad():
        found = model(batch, attention_mask=mask, labels=labels, output_hidden_states=True)
        said, at = [], []
        for index, row in enumerate(rows):
            channels, states = written_out(model, row)
            real = mask[index].bool()
            assert positions_of(model.config, batch, mask.bool())[index][:, real].tolist() == channels
            assert len(found.hidden_states) == len(states) == model.config.num_layers + 1
            for ours, written in zip(found.hidden_states, states, strict=True):
                close(ours[index, real], written)
            logits = states[-1] @ model.lm_head.weight.T
            close(found.logits[index, real], logits)
            said.append(logits[:-1])
            at.append(labels[index, real][1:])
        close(found.loss, torch.nn.functional.cross_entropy(torch.cat(said), torch.cat(at)))


@pytest.mark.parametrize("how", [{}, {"use_cache": False}])
def test_other_sizes_generate_in_a_batch_what_each_says_alone(sized, how):
    model, rows = sized
    batch = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_side="left")
    mask = torch.nn.utils.rnn.pad_sequence(
        [torch.ones(len(row)).long() for row in rows], batch_first=True, padding_side="left"
    )
    found = model.generate(batch, attention_mask=mask, max_new_tokens=7, do_sample=False, **how)
    twice = model.generate(
        batch, attention_mask=mask, max_new_tokens=4, do_sample=True, top_k=1, num_return_sequences=2, **how
    )
    for index, row in enumerate(rows):
        said = []
        while len(said) < 7 and model.config.eos_token_id not in said:
            _, states = written_out(model, [*row, *said])
            said.append(int((states[-1][-1] @ model.lm_head.weight.T).argmax()))
        padding = [model.config.pad_token_id] * (7 - len(said))
        assert found[index, batch.shape[1] :].tolist() == said + padding
        for copy in twice[2 * index : 2 * index + 2, batch.shape[1] :].tolist():
            assert copy[: len(said)] == said[:4]
