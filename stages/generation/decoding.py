"""How the next token is chosen."""

from typing import Annotated

from pydantic import Field

from stages.runtime.params import Section, Temperature


class Decoding(Section):
    """How the next token is chosen. It sets everything for which transformers has a default of its own."""

    do_sample: bool = True
    """Sample from the distribution; false takes the most likely token."""
    temperature: Temperature = 0.95
    """Divides the logits."""
    top_k: Annotated[int, Field(ge=0, le=2**20)] = 0
    """Keep the k most likely tokens; 0 keeps all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Keep the most likely tokens that together have this much probability; 1 keeps all."""
    repetition_penalty: Annotated[float, Field(ge=0.1, le=100)] = 1.0
    """Above 1, lowers the logits of the answer's own tokens (Keskar et al. 2019); 1 does nothing."""


PLAIN = Decoding(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0)
"""The model's own distribution."""
