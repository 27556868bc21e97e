"""Keys and values in storage that is allocated once: a token costs a copy of itself, not of all that came before.

transformers' own dynamic cache concatenates at each token; its static one lets attention read the empty rest.
"""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class PreallocatedLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values [B, heads, columns, head size], of which the first `length` columns are filled."""

    is_sliding = False  # a sliding window is masked, not dropped: every layer has the same columns

    def __init__(self, rows: int, columns: int):
        super().__init__()
        self.rows, self.columns = rows, columns
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        for name, states in (("keys", key_states), ("values", value_states)):
            # zeros: a masked column still takes part, and 0 times what was there before need not be 0
            setattr(self, name, states.new_zeros(self.rows, states.shape[1], self.columns, states.shape[3]))
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
        selected = PreallocatedLayer(len(rows), self.columns)
        selected.lazy_initialization(self.keys[rows, :, :1], self.values[rows, :, :1])
        selected.update(self.keys[rows, :, : self.length], self.values[rows, :, : self.length])
        return selected


class PromptLayer(CacheLayerMixin):  # type: ignore[misc]
    """The prompts of some rows, which are written to their place in the whole layer and attend to each other alone.

    Args:
        whole: a layer with room for them.
        column: the first one that they take.
    """

    is_sliding = False

    def __init__(self, whole: Any, rows: slice, column: int):
        super().__init__()
        self.whole, self.rows, self.column = whole, rows, column

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        if not self.whole.is_initialized:
            self.whole.lazy_initialization(key_states, value_states)
        self.dtype, self.device, self.is_initialized = self.whole.dtype, self.whole.device, True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.lazy_initialization(key_states, value_states)
        columns = slice(self.column, self.column + key_states.shape[2])
        self.whole.keys[self.rows, :, columns] = key_states
        self.whole.values[self.rows, :, columns] = value_states
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return int(self.whole.columns)


def preallocated(layers: int, rows: int, columns: int) -> Any:
    """A cache for a model of so many layers."""
    return Cache(layers=[PreallocatedLayer(rows, columns) for _ in range(layers)])


def for_prompts(layers: list[Any], rows: slice, column: int) -> Any:
    """A cache that writes the prompts of these rows into the layers, from this column on."""
    return Cache(layers=[PromptLayer(layer, rows, column) for layer in layers])


def select(cache: Any, rows: Tensor) -> Any:
    """A cache with these rows alone. Layer by layer, so that no more than one is there twice; `cache` is used up."""
    for number, layer in enumerate(cache.layers):
        cache.layers[number] = layer.select(rows)
    return Cache(layers=cache.layers)
