"""Transformer backbones: the objects of an event and a CLS token attend to each other.

With absent objects masked, an event of three objects needs 4 of its 20 tokens. On the CPU, eager
torch packs those of a whole batch into one matrix, (total_tokens, size), and computes nothing that
is thrown away. The exported or compiled graph, and a GPU, which would wait for the host to count
tokens, have fixed shapes: all tokens, absent ones masked; an engine on the CPU packs the graph as
it loads it (`engines.packed_graph`). All give the same numbers.
"""

import torch
from torch import nn

from engines.errors import ParameterError
from engines.events import N_OBJECTS
from training.networks.packing import DenseTokens, PackedTokens

__all__ = ["VICREG_HEADS", "TransformerEncoder", "choose_heads"]

#: Attention heads of the VICReg transformer by dimension; arXiv:2502.15926.
VICREG_HEADS = {2: 2, 4: 4, 8: 4, 16: 8, 24: 8, 32: 16}


def choose_heads(width: int, heads: int | None, defaults: dict[int, int]) -> int:
    """Return the number of attention heads for tokens of a width.

    Args:
        width: numbers of a token.
        heads: as asked for, or None for the default of this width.
        defaults: heads by width.

    Raises:
        ParameterError: if there is no default, or the heads do not divide the width.

    >>> choose_heads(16, None, VICREG_HEADS), choose_heads(16, 2, VICREG_HEADS)
    (8, 2)
    """
    chosen = defaults.get(width) if heads is None else heads
    divisors = [n for n in range(1, width + 1) if width % n == 0]
    choices = ", ".join(str(n) for n in divisors)
    if chosen is None:
        known = ", ".join(str(n) for n in defaults)
        msg = (
            f"dim must be one of {known} where heads are chosen for you; got {width}; "
            f"give --heads, one of {choices}"
        )
        raise ParameterError(msg)
    if chosen not in divisors:
        msg = f"heads must divide the token width {width}; got {chosen}; use one of {choices}"
        raise ParameterError(msg)
    return chosen


class _Attention(nn.Module):
    """Weights of self-attention; its operations export to plain ONNX."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_size = heads, size // heads
        self.query, self.key = nn.Linear(size, size), nn.Linear(size, size)
        self.value, self.out = nn.Linear(size, size), nn.Linear(size, size)

    def _by_head(self, tokens: torch.Tensor) -> torch.Tensor:
        """Turn (n, length, size) into (n, heads, length, head_size)."""
        shape = (-1, tokens.shape[1], self.heads, self.head_size)
        return tokens.reshape(shape).permute(0, 2, 1, 3)

    def mix(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        penalty: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return values mixed by attention, as (n, queries, size); the others likewise."""
        by_key = self._by_head(key).permute(0, 1, 3, 2)
        score = self._by_head(query) @ by_key * self.head_size**-0.5
        share = torch.softmax(score if penalty is None else score + penalty, dim=-1)
        mixed = (share @ self._by_head(value)).permute(0, 2, 1, 3)
        return mixed.reshape(-1, query.shape[1], self.heads * self.head_size)


class _Layer(nn.Module):
    """Attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, size: int, heads: int, feed_forward: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.norm_attention, self.norm_feed = norm(size), norm(size)
        self.attention = _Attention(size, heads)
        self.feed = nn.Sequential(
            nn.Linear(size, feed_forward), nn.ReLU(), nn.Linear(feed_forward, size)
        )

    def forward(
        self, tokens: torch.Tensor, layout: DenseTokens | PackedTokens, last: bool
    ) -> torch.Tensor:
        """Return the tokens after this layer; after the last one only CLS tokens, (n, 1, size)."""
        attention, normed = self.attention, self.norm_attention(tokens)
        key, value = attention.key(normed), attention.value(normed)
        if last:
            tokens, normed = layout.first(tokens), layout.first(normed)
        mixed = layout.attend(attention.mix, attention.query(normed), key, value)
        tokens = tokens + attention.out(mixed)
        result: torch.Tensor = tokens + self.feed(self.norm_feed(tokens))
        return result


class TransformerEncoder(nn.Module):
    """The 19 objects and a CLS token attend to each other; the CLS token gives the embedding.

    Each slot has its own learned offset, which tells an electron from a jet; that of slot 0 is the
    CLS token. The last layer computes the CLS token alone: the others would be thrown away.

    Args:
        dim: number of embedding coordinates d.
        n_inputs: numbers of an object.
        size: width of a token.
        heads: attention heads; they divide the width.
        feed_forward: width inside a layer.
        n_layers: layers.
        mask_absent: leave absent objects out of the attention. In the paper they stay in.
        narrow: for tokens of a few numbers. Norms divide by the root mean square and subtract
            nothing: a LayerNorm leaves two of d numbers no freedom, and of 2 numbers only a sign.
            For the same reason there is none before the last linear layer.

    Source: arXiv:2502.15926; arXiv:2002.04745 (norms before), arXiv:1910.07467 (root mean square).
    """

    def __init__(
        self,
        dim: int,
        n_inputs: int = 5,
        size: int = 64,
        heads: int = 8,
        feed_forward: int = 256,
        *,
        n_layers: int = 4,
        mask_absent: bool = False,
        narrow: bool = False,
    ) -> None:
        """Build the layers."""
        super().__init__()
        norm: type[nn.Module] = nn.RMSNorm if narrow else nn.LayerNorm
        self.mask_absent = mask_absent
        self.tokens = nn.Linear(n_inputs, size, bias=False)
        self.slots = nn.Parameter(0.02 * torch.randn(N_OBJECTS + 1, size))
        layers = (_Layer(size, heads, feed_forward, norm) for _ in range(n_layers))
        self.layers = nn.ModuleList(layers)
        final = nn.Identity() if narrow else norm(size)
        self.out = nn.Sequential(final, nn.Linear(size, dim))

    def forward(self, inputs: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return embeddings, (n, d).

        Args:
            inputs: scaled inputs, (n, 19, n_inputs).
            present: whether an object is there, (n, 19) bool.
        """
        layout: DenseTokens | PackedTokens
        padded = nn.functional.pad(inputs, (0, 0, 1, 0))
        with_cls = nn.functional.pad(present, (1, 0), value=True)
        if self.mask_absent and inputs.device.type == "cpu" and not torch.compiler.is_compiling():
            layout = PackedTokens.of(with_cls)
            packed = self.tokens(padded.flatten(0, 1).index_select(0, layout.indices))
            tokens = packed + self.slots.index_select(0, layout.indices % len(self.slots))
        else:
            layout = DenseTokens.of(with_cls) if self.mask_absent else DenseTokens(None)
            tokens = self.tokens(padded) + self.slots
        for index, layer in enumerate(self.layers):
            tokens = layer(tokens, layout, index == len(self.layers) - 1)
        embeddings: torch.Tensor = self.out(layout.by_event(tokens))
        return embeddings
