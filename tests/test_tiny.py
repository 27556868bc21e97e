"""The tiny base: its tokenizer knows every text, and its special tokens have rows that an answer can end with."""

import pytest
import torch
from tiny_models import ARCHITECTURE, TEXTS

from stages.models import tiny


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer(TEXTS, ARCHITECTURE)


@pytest.mark.parametrize("text", ["发烧三天了。", "naïve ☃ 👩‍⚕️", "\x00\t\n  ", "𠮷野家"])
def test_every_text_survives(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_each_special_token_gets_a_row_of_its_own(tokenizer):
    """After training all these rows are alike, pushed away from the text; the others must stay as they were."""
    torch.manual_seed(0)
    network = tiny.network(ARCHITECTURE.replace(hidden_size=64), tokenizer)
    rows = network.get_input_embeddings().weight
    special = tokenizer.all_special_ids
    assert len(special) == 4
    with torch.no_grad():
        rows[special] = -3 * rows.mean(dim=0)
    before = rows.detach().clone()

    tiny.renew_special_rows(network, tokenizer)
    others = [index for index in range(len(rows)) if index not in special]
    assert torch.equal(rows[others], before[others])
    likeness = torch.nn.functional.cosine_similarity(rows[special][:, None], rows[special][None], dim=-1)
    assert (likeness - torch.eye(4)).abs().max() < 0.5
    ratio = rows[special].norm(dim=1) / before.norm(dim=1).mean()
    assert ((ratio > 0.6) & (ratio < 1.6)).all()
