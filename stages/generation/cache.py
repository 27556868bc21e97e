"""Keys and values in storage that is allocated once: a token costs a copy of itself, not of all that came before.

transformers' own dynamic cache concatenates at each token; its static one lets attention read the empty rest.
"""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class PreallocatedLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values [B, heads, columns, head size], of which the first `length` columns are filled."""

    is_sliding = False  # a sliding window is masked, not dropped: every layer has the same columns

    def __init__(self, columns: int):
        super().__init__()
        self.columns = columns
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        for name, states in (("keys", key_states), ("values", value_states)):
            setattr(self, name, states.new_empty(*states.shape[:2], self.columns, states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add the columns; returns all that are filled."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        before, self.length = self.length, self.length + key_states.shape[2]
        self.keys[:, :, before : self.length] = key_states
        self.values[:, :, before : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return self.columns

    def select(self, rows: Tensor) -> "PreallocatedLayer":
        """The layer with these rows alone."""
        selected = PreallocatedLayer(self.columns)
        selected.lazy_initialization(self.keys[rows, :, :1], self.values[rows, :, :1])
        selected.update(self.keys[rows, :, : self.length], self.values[rows, :, : self.length])
        return selected


def preallocated(layers: int, columns: int) -> Any:
    """A cache for a model of so many layers."""
    return Cache(layers=[PreallocatedLayer(columns) for _ in range(layers)])


def select(cache: Any, rows: Tensor) -> Any:
    """A cache with these rows alone."""
    return Cache(layers=[layer.select(rows) for layer in cache.layers])
