"""Edits laid over a model whose weights are never written to.

    rome = Overlay({"transformer.h.5.mlp.c_proj": (LowRank(u, v),)})
    with lm.overlaid(rome): ...                       # exact on exit: nothing was changed
    lm.generate(prompts, overlays=[None, rome, rome + memit])     # one batch, an overlay a row

An overlay maps names of modules to parts. Deltas are (in, out) whatever the module's own orientation: the module's
output becomes ``output + input @ delta``, which is what writing the delta into the weight would give. All deltas of a
module count first, in the order of addition, then its adapters, in the order of addition: an adapter stands around the
module, edits of the weight within.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from knowledge.errors import InvalidInput
from language_model.adapters import AdapterModule

if TYPE_CHECKING:
    from language_model.model import LanguageModel


@dataclass(frozen=True, eq=False)
class LowRank:
    """A weight change u @ v. ``u`` is (in, r), ``v`` is (r, out)."""

    u: Tensor
    v: Tensor

    def __post_init__(self) -> None:
        if self.u.dim() != 2 or self.v.dim() != 2 or self.u.shape[1] != self.v.shape[0]:
            raise InvalidInput(
                f"A low-rank change needs u (in, r) and v (r, out); got {tuple(self.u.shape)}, {tuple(self.v.shape)}."
            )

    @property
    def shape(self) -> tuple[int, int]:
        return self.u.shape[0], self.v.shape[1]

    @property
    def rank(self) -> int:
        return int(self.u.shape[1])

    def dense(self) -> Tensor:
        """The change as one (in, out) matrix."""
        return self.u @ self.v

    def apply(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return (input @ self.u) @ self.v

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> LowRank:
        return LowRank(self.u.to(device=device, dtype=dtype), self.v.to(device=device, dtype=dtype))

    def tensors(self) -> dict[str, Tensor]:
        return {"u": self.u, "v": self.v}


@dataclass(frozen=True, eq=False)
class Dense:
    """A weight change of full rank. ``delta`` is (in, out)."""

    delta: Tensor

    def __post_init__(self) -> None:
        if self.delta.dim() != 2:
            raise InvalidInput(f"A dense change needs a matrix (in, out); got the shape {tuple(self.delta.shape)}.")

    @property
    def shape(self) -> tuple[int, int]:
        return self.delta.shape[0], self.delta.shape[1]

    @property
    def rank(self) -> int:
        return min(self.shape)

    def dense(self) -> Tensor:
        return self.delta

    def apply(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return input @ self.delta

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Dense:
        return Dense(self.delta.to(device=device, dtype=dtype))

    def tensors(self) -> dict[str, Tensor]:
        return {"delta": self.delta}


@dataclass(frozen=True, eq=False)
class Adapter:
    """A module that turns (input, output) of the module it stands around into a new output."""

    module: AdapterModule

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Adapter:
        """A copy elsewhere; the same part when nothing changes. Integers keep their type."""
        state = self.module.state_dict()
        if all(_placed(tensor, device, dtype) for tensor in state.values()):
            return self
        moved = {
            name: tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
            for name, tensor in state.items()
        }
        return Adapter(type(self.module).restore(self.module.config(), moved).to(device=device, dtype=dtype))

    def tensors(self) -> dict[str, Tensor]:
        return dict(self.module.state_dict())


Part = LowRank | Dense | Adapter


def _placed(tensor: Tensor, device: torch.device | str | None, dtype: torch.dtype | None) -> bool:
    at_home = device is None or tensor.device == torch.device(device)
    return at_home and (dtype is None or not tensor.is_floating_point() or tensor.dtype == dtype)


class Overlay:
    """An immutable set of changes to named modules. Adding two gives the changes of both; order is kept.

    Tensors may require gradients (to train a delta); the model's own weights stay frozen.
    """

    __slots__ = ("__weakref__", "_parts", "_placed")

    def __init__(self, parts: Mapping[str, tuple[Part, ...]]) -> None:
        self._parts = MappingProxyType({name: tuple(these) for name, these in parts.items() if these})
        self._placed: dict[tuple[str, torch.device, torch.dtype], tuple[Part, ...]] = {}

    @classmethod
    def empty(cls) -> Self:
        return cls({})

    @property
    def parts(self) -> Mapping[str, tuple[Part, ...]]:
        return self._parts

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules that are changed."""
        return tuple(self._parts)

    def __bool__(self) -> bool:
        return bool(self._parts)

    def __iter__(self) -> Iterator[tuple[str, Part]]:
        return ((name, part) for name, parts in self._parts.items() for part in parts)

    def __add__(self, other: Overlay) -> Overlay:
        if not isinstance(other, Overlay):
            return NotImplemented
        if not (self and other):
            return self or other
        names = [*self._parts, *(name for name in other._parts if name not in self._parts)]
        return Overlay({name: self._parts.get(name, ()) + other._parts.get(name, ()) for name in names})

    def __repr__(self) -> str:
        inside = "; ".join(f"{name}: {' + '.join(map(_describe, parts))}" for name, parts in self._parts.items())
        return f"Overlay({inside or 'empty'})"

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Overlay:
        """A copy whose tensors are on ``device`` and of ``dtype``."""
        return Overlay({name: tuple(part.to(device, dtype) for part in parts) for name, parts in self._parts.items()})

    def placed(self, name: str, device: torch.device, dtype: torch.dtype) -> tuple[Part, ...]:
        """The parts of one module ready to compute with; moved once and kept, unless they are being trained."""
        parts = self._parts.get(name, ())
        if any(
            tensor.requires_grad for part in parts if not isinstance(part, Adapter) for tensor in part_tensors(part)
        ):
            return tuple(part.to(device, dtype) for part in parts)
        key = (name, device, dtype)
        if key not in self._placed:
            self._placed[key] = tuple(part.to(device, dtype) for part in parts)
        return self._placed[key]

    def delta(self, name: str) -> Tensor | None:
        """The summed weight change of one module, (in, out); None where its weight is not changed."""
        total: Tensor | None = None
        for part in self._parts.get(name, ()):
            if not isinstance(part, Adapter):
                total = part.dense() if total is None else total + part.dense()
        return total

    def same_as(self, other: Overlay) -> bool:
        """Whether both change the model alike, up to rounding, in however many parts they say it."""
        return set(self._parts) == set(other._parts) and all(
            _same_change(parts, other._parts[name]) for name, parts in self._parts.items()
        )

    @property
    def num_bytes(self) -> int:
        """Memory of all tensors."""
        return sum(t.numel() * t.element_size() for _, part in self for t in part_tensors(part))

    def norms(self, lm: LanguageModel) -> dict[str, float]:
        """|delta| / |W| by module, Frobenius norms; modules that only have adapters are left out."""
        from language_model.architectures import weight_in_out

        found: dict[str, float] = {}
        for name, parts in self._parts.items():
            squared = _squared_norm([part for part in parts if not isinstance(part, Adapter)])
            if squared is not None:
                weight = weight_in_out(lm.module(name)).detach()
                found[name] = math.sqrt(squared) / max(float(weight.double().norm()), torch.finfo(torch.float32).tiny)
        return found

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file; the parts are described in its header."""
        from language_model.overlay_files import save_overlay

        save_overlay(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Overlay:
        """Reads what :meth:`save` wrote.

        Raises:
            OverlayUnreadable: not such a file, damaged, or with an adapter that is not registered.
        """
        from language_model.overlay_files import load_overlay

        return load_overlay(Path(path))


def part_tensors(part: Part) -> tuple[Tensor, ...]:
    return tuple(part.tensors().values())


def _same_change(these: tuple[Part, ...], those: tuple[Part, ...]) -> bool:
    """Whether the changes of one module are one: their weights differ by rounding only, their adapters not at all."""
    mine, theirs = ([part for part in parts if isinstance(part, Adapter)] for parts in (these, those))
    if len(mine) != len(theirs) or not all(map(_same_adapter, mine, theirs)):
        return False
    deltas, others = ([part for part in parts if not isinstance(part, Adapter)] for parts in (these, those))
    if not (deltas and others):
        return bool(deltas) == bool(others)
    if {part.shape for part in deltas} != {part.shape for part in others}:
        return False
    apart = _squared_norm([*deltas, *map(_negative, others)])
    return apart is not None and apart <= 1e-10 * (_squared_norm(deltas) or 0.0)


def _same_adapter(one: Adapter, other: Adapter) -> bool:
    a, b = one.tensors(), other.tensors()
    return type(one.module) is type(other.module) and a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def _negative(part: LowRank | Dense) -> LowRank | Dense:
    return LowRank(-part.u, part.v) if isinstance(part, LowRank) else Dense(-part.delta)


def _describe(part: Part) -> str:
    if isinstance(part, Adapter):
        return f"adapter {type(part.module).__name__}"
    return f"rank {part.rank}" if isinstance(part, LowRank) else "dense"


def _squared_norm(deltas: list[LowRank | Dense]) -> float | None:
    """|sum of deltas|^2. Low-rank sums go through Gram matrices of size r, never through (in, out)."""
    if not deltas:
        return None
    if all(isinstance(delta, LowRank) for delta in deltas):
        u = torch.cat([delta.u.detach().double() for delta in deltas if isinstance(delta, LowRank)], dim=1)
        v = torch.cat([delta.v.detach().double() for delta in deltas if isinstance(delta, LowRank)], dim=0)
        return max(0.0, float(((u.T @ u) * (v @ v.T)).sum()))
    total = sum((delta.dense().detach().double() for delta in deltas[1:]), deltas[0].dense().detach().double())
    return float(total.square().sum())
