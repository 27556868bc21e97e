"""Passes of one shape, recorded once as a CUDA graph and then replayed: a token costs one launch, not thousands.

A graph repeats its kernels on the very addresses that it was recorded with. So everything that it reads has a place
that stays: ids, positions, mask, keys and values here, the weights by `stack.merged`, which adds adapters in place.
Rows and columns go in few sizes, each with a graph of its own; all of them are views of one storage. A row that has
ended runs on unseen until so few are left that a smaller size holds them.

A token looks at all columns, the empty ones behind a mask: sums can round otherwise than in `Steps`.
"""

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from stages.generation import steps
from stages.models import forward

COLUMNS = 64
"""The number of columns is a multiple of it."""


def usable(model: Any, ids: Tensor) -> bool:
    language_model = forward.causal_lm(model)
    return ids.is_cuda and not asks_the_device(language_model) and steps.additive(ids[:1], language_model) is not None


def asks_the_device(language_model: Any) -> bool:
    """Whether a pass waits for a value of the GPU, which a recording can't: LLM.int8 for its outliers, RoPE that grows
    for the length."""
    rope = getattr(language_model.config.get_text_config(), "rope_parameters", None)
    return bool(getattr(language_model, "is_loaded_in_8bit", False)) or "dynamic" in str(rope)


class RecordedSteps:
    """As `steps.Steps`.

    Args:
        model: with its adapters: a graph holds for those that are active and merged when it is recorded.
    """

    def __init__(self, model: Any, ids: Tensor, mask: Tensor, limit: int):
        self.language_model, self.ids, self.mask = forward.causal_lm(model), ids, mask
        batch, width = ids.shape
        self.rows, self.columns = rows_for(batch), -(-(width + limit) // COLUMNS) * COLUMNS
        self.storage = Storage.of(self.language_model, self.rows, self.columns)
        self.adapters = adapters(model)
        self.places = torch.arange(batch, device=ids.device)
        self.positions = steps.first_positions(self.language_model, ids, mask)
        self.used = width

    def first(self) -> Tensor:
        storage = self.storage
        logits = steps.read_prompts(self.language_model, self.ids, self.mask, self.positions, storage.layers)
        ahead = self.mask.new_zeros(len(self.mask), storage.mask.shape[-1] - self.used)
        hidden = steps.additive(torch.cat([self.mask, ahead], dim=1), self.language_model)
        assert hidden is not None
        storage.mask.zero_()  # rows without an answer see all: a row that sees nothing is not a number
        storage.mask[: len(hidden)] = hidden
        storage.ids.zero_()
        storage.column.fill_(self.used)
        return logits

    def next(self, chosen: Tensor) -> Tensor:
        storage = self.storage
        self.positions = steps.next_positions(self.language_model, self.positions)
        storage.ids.index_copy_(0, self.places, chosen[:, None])
        storage.place_positions(self.places, self.positions)
        storage.mask.index_fill_(3, storage.column, 0)
        logits = storage.step(self.language_model, self.rows, self.columns, self.adapters)()
        storage.column += 1
        self.used += 1
        return logits[self.places]

    def keep(self, rows: Tensor) -> None:
        self.places, self.positions = self.places[rows], self.positions[rows]
        if rows_for(len(rows)) < self.rows:
            self.storage.move(self.places, self.used)
            self.rows, self.places = rows_for(len(rows)), torch.arange(len(rows), device=rows.device)


class StorageLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values [rows, heads, columns, head size], written column by column."""

    is_sliding = False

    def __init__(self, rows: int, columns: int):
        super().__init__()
        self.rows, self.columns = rows, columns
        self.column: Tensor | None = None
        """[1], where a pass writes."""
        self.view = (rows, columns)
        """The part that a recorded pass works on."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        for name, states in (("keys", key_states), ("values", value_states)):  # zeros: 0 · what was there is not 0
            setattr(self, name, states.new_zeros(self.rows, states.shape[1], self.columns, states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        rows, columns = self.view
        keys, values = self.keys[:rows, :, :columns], self.values[:rows, :, :columns]
        keys.index_copy_(2, self.column, key_states)
        values.index_copy_(2, self.column, value_states)
        return keys, values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.view[1], 0

    def get_seq_length(self) -> int:
        return self.view[1] - 1

    def get_max_length(self) -> int:
        return self.columns


class Storage:
    """What graphs of one model read and write, and the graphs."""

    known: "WeakKeyDictionary[Any, Storage]" = WeakKeyDictionary()

    @classmethod
    def of(cls, language_model: Any, rows: int, columns: int) -> "Storage":
        """The model's storage, made anew where it is too small."""
        found = cls.known.get(language_model)
        if found is None or found.rows < rows or found.columns < columns:
            if found is not None:
                rows, columns = max(rows, found.rows), max(columns, found.columns)
                del cls.known[language_model], found  # before the new one is allocated
            found = cls.known[language_model] = cls(language_model, rows, columns)
        return found

    def __init__(self, language_model: Any, rows: int, columns: int):
        device = next(language_model.parameters()).device
        self.rows, self.columns = rows, columns
        count = language_model.config.get_text_config().num_hidden_layers
        self.layers = [StorageLayer(rows, columns) for _ in range(count)]
        self.ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self.positions: Tensor | None = None
        self.mask = torch.zeros(rows, 1, 1, columns, dtype=language_model.dtype, device=device)
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        self.recorded: dict[Any, Callable[[], Tensor]] = {}

    def place_positions(self, places: Tensor, positions: Tensor) -> None:
        """positions: [n, 1], or ChatGLM's [n, 2, 1]."""
        if self.positions is None:
            self.positions = positions.new_zeros(self.rows, *positions.shape[1:])
        self.positions.index_copy_(0, places, positions)

    def step(self, language_model: Any, rows: int, columns: int, state: Any) -> Callable[[], Tensor]:
        """A pass over the newest token of each of the first rows → logits [rows, V]; recorded when first asked for."""
        for layer in self.layers:
            layer.column, layer.view = self.column, (rows, columns)
        found = self.recorded.get((rows, columns, state))
        if found is None:
            assert self.positions is not None
            inputs = self.ids[:rows], self.mask[:rows, ..., :columns], self.positions[:rows]
            kept = Cache(layers=self.layers)
            found = record(lambda: steps.last_logits(language_model, *inputs, kept))
            self.recorded[rows, columns, state] = found
        return found

    def move(self, places: Tensor, used: int) -> None:
        """Bring the rows at these places to the front, with their first columns."""
        count = len(places)
        self.mask[:count] = self.mask[places]
        for layer in self.layers:
            for states in (layer.keys, layer.values):
                states[:count, :, :used] = states[places, :, :used]


def record(run: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The call as a CUDA graph; its result is always the same tensor, with new content.

    The call must write nothing that it reads: it runs three times before it is recorded, for what libraries set up.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def rows_for(count: int) -> int:
    """The size that holds so many rows: a power of two."""
    return 1 << (count - 1).bit_length()


def adapters(model: Any) -> tuple[Any, ...]:
    """Which adapters take part, and which of them are in the weights."""
    layers = (module for module in model.modules() if hasattr(module, "merged_adapters"))
    first = next(layers, None)
    return () if first is None else (*first.active_adapters, "merged", *first.merged_adapters, first.disable_adapters)
