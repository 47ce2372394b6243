"""Two layouts of the tokens of a batch: all 20 of each event, or those that are present, packed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch

__all__ = ["DenseTokens", "Mix", "PackedTokens"]

#: Mixes values by attention: (query, key, value, penalty), tokens by event, to (n, queries, size).
Mix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]
#: Added to the score of an absent object: its share is then exactly zero, in half precision too.
_MASKED = -3e4


@dataclass(frozen=True)
class DenseTokens:
    """All 20 tokens of each event, (n, 20, size), the CLS token first.

    Attributes:
        penalty: added to attention scores, (n, 1, 1, 20); None masks nothing.
    """

    penalty: torch.Tensor | None

    @classmethod
    def of(cls, present: torch.Tensor) -> Self:
        """Return the layout that masks the tokens that are absent, (n, 20) bool."""
        return cls(((~present).to(torch.float32) * _MASKED).unsqueeze(1).unsqueeze(1))

    def attend(
        self, mix: Mix, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Return what each query token reads from its event, in the shape of `query`."""
        return mix(query, key, value, self.penalty)

    def first(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the CLS token of each event, (n, 1, size)."""
        return tokens[:, :1]

    def by_event(self, first: torch.Tensor) -> torch.Tensor:
        """Return CLS tokens, (n, size), in the order of the batch."""
        return first[:, 0]


@dataclass(frozen=True)
class PackedTokens:
    """The tokens that are present, (total_tokens, size), event after event, the CLS token first.

    Events are sorted by their number of tokens, so that those of one number are a full tensor of
    their own: attention needs neither padding nor mask.

    Attributes:
        indices: where each token stands among n x 20, (total_tokens,).
        starts: row of each event's CLS token, (n,), in sorted order.
        rank: place of each event in the sorted order, (n,).
        groups: events of a number of tokens, and that number, in rising order.
    """

    indices: torch.Tensor
    starts: torch.Tensor
    rank: torch.Tensor
    groups: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, present: torch.Tensor) -> Self:
        """Return the packing of the tokens that are present, (n, 20) bool, the first of all."""
        counts, order = present.sum(dim=1).sort(stable=True)
        in_order = torch.arange(present.numel(), device=present.device).reshape(present.shape)
        indices = in_order[order][present[order]]
        groups = enumerate(torch.bincount(counts).tolist())
        return cls(
            indices,
            counts.cumsum(dim=0) - counts,
            order.argsort(),
            tuple((n_events, length) for length, n_events in groups if n_events),
        )

    def attend(
        self, mix: Mix, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Return what each query token reads from its event, in the shape of `query`.

        Args:
            mix: attention within events of one number of tokens.
            query: of all tokens, (total_tokens, size), or of CLS tokens alone, (n, 1, size).
            key: of all tokens, (total_tokens, size).
            value: of all tokens, (total_tokens, size).
        """
        sizes = [n_events * length for n_events, length in self.groups]
        cls_only = query.ndim == 3
        queries = torch.split(query, [n for n, _ in self.groups] if cls_only else sizes)
        mixed = []
        for (n_events, length), q, k, v in zip(
            self.groups, queries, torch.split(key, sizes), torch.split(value, sizes), strict=True
        ):
            shape = (n_events, length, -1)
            read = mix(
                q if cls_only else q.reshape(shape), k.reshape(shape), v.reshape(shape), None
            )
            mixed.append(read if cls_only else read.flatten(0, 1))
        return torch.cat(mixed)

    def first(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the CLS token of each event, (n, 1, size), in sorted order."""
        return tokens.index_select(0, self.starts).unsqueeze(1)

    def by_event(self, first: torch.Tensor) -> torch.Tensor:
        """Return CLS tokens, (n, size), in the order of the batch."""
        return first[:, 0].index_select(0, self.rank)
