"""The forward pass of all-MiniLM-L6-v2 (a 6-layer BERT, 1810.04805), written out for single questions.

A question of ten tokens is faster than through the modules of ``transformers`` (queries, keys and values are
one product, and a hundred module calls fall away), and that package need not be imported before the first search. A
test compares the vectors with those of sentence-transformers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, normalize, scaled_dot_product_attention

_HEADS = 12
_EPSILON = 1e-12  # of the layer norms (config.json)


@dataclass(frozen=True)
class _Layer:
    """Weights of one layer; ``*_norm`` are scale and shift of a layer norm."""

    qkv: tuple[Tensor, Tensor]
    mixed: tuple[Tensor, Tensor]
    mixed_norm: tuple[Tensor, Tensor]
    wider: tuple[Tensor, Tensor]
    narrower: tuple[Tensor, Tensor]
    norm: tuple[Tensor, Tensor]


def quickest() -> str:
    """The arithmetic in which this processor multiplies fastest without hurting the vectors.

    bfloat16 where the processor multiplies in it (a question takes two thirds of the time, many statements
    half or less, and no cosine moves by more than 0.0001), else float32, since elsewhere bfloat16 is emulated and slow.
    """
    able = torch.cpu.get_capabilities()
    return "bfloat16" if able.get("amx_bf16") or able.get("avx512_bf16") else "float32"


class MiniLMNetwork:
    """Token ids to unit vectors.

    Args:
        tensors: the published weights by their names.
        arithmetic: of the products with weights and of attention, "float32" or "bfloat16"; sums and norms are
            float32 always.

    Raises:
        KeyError: one of them is missing; its name is the message.
    """

    def __init__(self, tensors: dict[str, Tensor], arithmetic: str = "float32") -> None:
        self.dtype = getattr(torch, arithmetic)

        def pair(name: str) -> tuple[Tensor, Tensor]:
            kind = torch.float32 if name.endswith("LayerNorm") else self.dtype
            return tensors[f"{name}.weight"].to(kind), tensors[f"{name}.bias"].to(kind)

        self._words = tensors["embeddings.word_embeddings.weight"].float()
        # every token is of the first type here, so its vector goes with the position's
        self._positions = (
            tensors["embeddings.position_embeddings.weight"] + tensors["embeddings.token_type_embeddings.weight"][0]
        ).float()
        self._norm = pair("embeddings.LayerNorm")
        count = 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer."))
        self._layers = []
        for number in range(count):
            at = f"encoder.layer.{number}"
            parts = [pair(f"{at}.attention.self.{part}") for part in ("query", "key", "value")]
            self._layers.append(
                _Layer(
                    (torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])),
                    pair(f"{at}.attention.output.dense"),
                    pair(f"{at}.attention.output.LayerNorm"),
                    pair(f"{at}.intermediate.dense"),
                    pair(f"{at}.output.dense"),
                    pair(f"{at}.output.LayerNorm"),
                )
            )

    @torch.inference_mode()
    def states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Last hidden states.

        Args:
            ids: (batch, tokens).
            mask: (batch, tokens), 1 for tokens and 0 for padding.

        Returns:
            shape (batch, tokens, 384).
        """
        batch, tokens = ids.shape
        seen = None if bool(mask.all()) else mask[:, None, None, :].bool()
        x = _normed(self._words[ids] + self._positions[:tokens], self._norm)
        for layer in self._layers:
            q, k, v = linear(x.to(self.dtype), *layer.qkv).view(batch, tokens, 3, _HEADS, -1).permute(2, 0, 3, 1, 4)
            mixed = scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2).reshape(x.shape)
            x = _normed(x + linear(mixed, *layer.mixed), layer.mixed_norm)
            x = _normed(x + linear(gelu(linear(x.to(self.dtype), *layer.wider)), *layer.narrower), layer.norm)
        return x

    @torch.inference_mode()
    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors of length 1, shape (batch, 384): the means of :meth:`states` over the tokens."""
        x = self.states(ids, mask)
        weights = mask.unsqueeze(-1).to(x.dtype)
        return normalize((x * weights).sum(1) / weights.sum(1).clamp(min=1e-9), dim=1)


def _normed(x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
    return layer_norm(x, (x.shape[-1],), *norm, eps=_EPSILON)
