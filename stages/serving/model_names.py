"""The names that people call the models by, and the adapter folders behind each."""

from enum import StrEnum
from pathlib import Path

from stages.models import stack
from stages.models.base_model import Base


class Name(StrEnum):
    base = "base"
    sft = "sft"
    ppo = "ppo"


def resolve(name: Name, base: Base, sft: Path, ppo: Path) -> list[Path]:
    """The adapter folders of the model `name`, lowest first, as its top adapter recorded them.

    Raises:
        UserError: they do not fit the base or each other, see `stack.resolve`.
    """
    candidates = {Name.base: [], Name.sft: [sft], Name.ppo: [sft, ppo]}
    return stack.resolve(base, candidates[name], name)
