"""Many differences looked at together → which of them stay larger than chance: Holm's step-down test (1979)."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

K = TypeVar("K", bound=Hashable)


def holm(p_values: Mapping[K, float], level: float = 0.05) -> set[K]:
    """The keys that are rejected while the chance of any false rejection stays within `level`.

    The k-th smallest of m values (k from 0) must be at most level / (m − k); the first that is not ends the list.
    """
    rejected = set()
    for k, key in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        if p_values[key] > level / (len(p_values) - k):
            break
        rejected.add(key)
    return rejected
