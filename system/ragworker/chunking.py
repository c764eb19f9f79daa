"""Cut a document's words into overlapping chunks and count tokens. Pure; works on a stream of words.

The rule is public, so that anybody can recount: words w_0..w_{n-1}; chunk k covers [k*step, k*step + size)
with step = size - overlap; chunks are made until one reaches the last word. Tokens of a chunk are
ceil(words x 1.3), in integers (spec B4). Reading files is left to `extract.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: its place, its text (words joined by one space) and its token estimate."""

    ordinal: int
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """Sizes in words; `overlap` must be smaller than `words`."""

    words: int = 180
    overlap: int = 30

    def __post_init__(self) -> None:
        if self.words < 1 or not 0 <= self.overlap < self.words:
            raise ValueError(
                f"expected 0 <= overlap < words, got: overlap {self.overlap}, words {self.words}"
            )

    @property
    def step(self) -> int:
        """Words from the start of one chunk to the start of the next."""
        return self.words - self.overlap

    def count(self, words: int) -> int:
        """How many chunks a document of `words` words has."""
        if words <= 0:
            return 0
        return 1 if words <= self.words else -(-(words - self.overlap) // self.step)

    def tokens(self, words: int) -> int:
        """The token estimate of one chunk of `words` words: ceil(1.3 x words)."""
        return (words * 13 + 9) // 10

    def document_tokens(self, words: int) -> int:
        """The sum over a document's chunks: all are full but the last."""
        chunks = self.count(words)
        if chunks == 0:
            return 0
        return (chunks - 1) * self.tokens(self.words) + self.tokens(words - (chunks - 1) * self.step)

    def cut(self, words: Iterable[str]) -> Iterator[Chunk]:
        """The chunks of a stream of words; holds one chunk's words and the next step at a time."""
        source = iter(words)
        window = list(islice(source, self.words))
        for ordinal in count():
            if window:
                yield Chunk(ordinal, " ".join(window), self.tokens(len(window)))
            # A chunk is followed by another one only when it did not reach the last word.
            following = list(islice(source, self.step))
            if not following:
                return
            window = window[self.step :] + following


def batches(chunks: int, *, size: int) -> int:
    """How many embedding requests `chunks` chunks make in batches of `size` (spec B1)."""
    return -(-chunks // size)
