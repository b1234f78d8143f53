"""Blocks of tokens in a folder, mapped into memory: a training touches those that it trains on, and loads no others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np

from kdleak.core.files import replacing_folder
from kdleak.data.encoding import EncodedRecord

#: tokens.bin: the tokens of all blocks; ends.bin: for each block, how many tokens stand before its end.
_TOKENS, _ENDS = "tokens.bin", "ends.bin"
_TOKEN, _END = np.dtype("<i4"), np.dtype("<i8")


def write_blocks(blocks: Iterable[Sequence[int]], folder: Path) -> int:
    """Write `blocks` into `folder`, each as it comes; returns how many."""
    number = end = 0
    with replacing_folder(folder) as fresh:
        fresh.chmod(0o700)
        with (fresh / _TOKENS).open("wb") as tokens, (fresh / _ENDS).open("wb") as ends:
            for block in blocks:
                number, end = number + 1, end + len(block)
                tokens.write(np.asarray(block, _TOKEN).tobytes())
                ends.write(np.asarray(end, _END).tobytes())
    return number


def blocks_stand_in(folder: Path) -> bool:
    """Whether `folder` holds blocks, one at least and the last one whole."""
    tokens, ends = folder / _TOKENS, folder / _ENDS
    if not (tokens.is_file() and ends.is_file()) or not ends.stat().st_size:
        return False
    return int(np.memmap(ends, _END, mode="r")[-1]) * _TOKEN.itemsize == tokens.stat().st_size


class TokenBlocks(Sequence[EncodedRecord]):
    """Blocks as records with a loss on all of their tokens, behind the token `start`. Each is made when asked for."""

    def __init__(self, folder: Path, start: int):
        self._start = start
        self._ends = np.memmap(folder / _ENDS, _END, mode="r")
        self._tokens = np.memmap(folder / _TOKENS, _TOKEN, mode="r")

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> EncodedRecord: ...
    @overload
    def __getitem__(self, index: slice) -> list[EncodedRecord]: ...
    def __getitem__(self, index: int | slice) -> EncodedRecord | list[EncodedRecord]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        begin = int(self._ends[index - 1]) if index else 0
        tokens = tuple(self._tokens[begin : int(self._ends[index])].tolist())
        return EncodedRecord(f"block-{index}", (self._start,), tokens, n_scored=0)
