"""Keys and values of sequences that are decoded together, one row each."""

from __future__ import annotations

import torch

_GRAIN = 256
"""Rows grow by this many positions at a time, so that a growing sequence seldom means copying."""


class RowCache:
    """What attention remembers of several sequences of different lengths.

    A layer of the model hands its new keys and values to :meth:`update` and gets back those of all
    positions so far: that is all that transformers' attention asks of a cache. Where the new ones belong is
    said beforehand with :meth:`write_span` (many tokens of one row), :meth:`write_starts` (many of each row) or
    :meth:`write_next` (one of each row).
    Memory is laid out as (rows, heads, positions, head size) per layer and is zero where never written, so
    that masked positions add exactly nothing.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._read_rows = slice(0, 0)
        self._read_length = 0
        self._starts: torch.Tensor | None = None

    def write_span(self, row: int, start: int, length: int) -> None:
        """The next forward pass holds ``length`` tokens of one row, from position ``start`` on."""
        self._read_rows, self._read_length, self._starts = slice(row, row + 1), start + length, None

    def write_starts(self, rows: int, length: int) -> None:
        """The next forward pass holds the first ``length`` tokens of each of the first rows."""
        self._read_rows, self._read_length, self._starts = slice(0, rows), length, None

    def write_next(self, positions: torch.Tensor) -> None:
        """The next forward pass holds one token for each of the first rows, at these positions (rows,)."""
        self._read_rows, self._read_length = slice(0, len(positions)), int(positions.max()) + 1
        self._starts = positions

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take a layer's new keys and values; return those of all positions so far.

        Shapes: (rows, heads, tokens, head size), where tokens are the new ones, or all of the longest row.
        """
        return (
            self._write(self._keys, keys, layer_idx),
            self._write(self._values, values, layer_idx),
        )

    def adopt(self, row: int, other: RowCache, length: int, source: int = 0) -> None:
        """Copy the first ``length`` positions of another cache's row."""
        self._copy(other, source, row, length)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy one row over another."""
        self._copy(self, source, target, length)

    def clear(self) -> None:
        """Let go of all memory."""
        self._keys.clear()
        self._values.clear()

    @torch.inference_mode()  # memory that grew within a forward pass can be written to in no other mode
    def _copy(self, other: RowCache, source: int, target: int, length: int) -> None:
        for mine, theirs in ((self._keys, other._keys), (self._values, other._values)):
            for layer, tensor in enumerate(theirs):
                room = self._room(mine, layer, length, like=tensor)
                room[target, :, :length] = tensor[source, :, :length]

    def _write(self, store: list[torch.Tensor], new: torch.Tensor, layer: int) -> torch.Tensor:
        room = self._room(store, layer, self._read_length, like=new)
        rows, length = self._read_rows, self._read_length
        if self._starts is None:
            room[rows, :, length - new.shape[2] : length] = new
        else:
            room[torch.arange(rows.stop), :, self._starts] = new[:, :, 0]
        return room[rows, :, :length]

    def _room(self, store: list[torch.Tensor], layer: int, length: int, like: torch.Tensor) -> torch.Tensor:
        if layer == len(store):
            store.append(like.new_zeros((self._rows, like.shape[1], 0, like.shape[3])))
        room = store[layer]
        if room.shape[2] < length:
            capacity = -(-length // _GRAIN) * _GRAIN
            grown = room.new_zeros((self._rows, room.shape[1], capacity, room.shape[3]))
            grown[:, :, : room.shape[2]] = room
            store[layer] = room = grown
        return room
