"""Added parameters: modules that change another module's output as a function of its input (GRACE, T-Patcher, CaliNET).

    @register_adapter("patch")
    class Patch(AdapterModule):
        def __init__(self, width: int, slots: int) -> None: ...
        def config(self) -> dict[str, Any]: return {"width": self.width, "slots": self.slots}
        def forward(self, input: Tensor, output: Tensor) -> Tensor: ...

    Overlay({"transformer.h.5.mlp": (Adapter(Patch(256, 4)),)})

Classes are registered by name, so that an overlay file says "patch" and the numbers, and loading it runs no code that
the file chose. A package may register ``"package.module:Class"`` instead of the class, which is imported on first use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, ClassVar, Self, TypeVar

from torch import Tensor, nn

from knowledge.errors import UnknownName


class AdapterModule(nn.Module, ABC):
    """Base class of adapters. Its tensors (parameters and persistent buffers) are what is saved.

    While ``forward`` runs, :func:`language_model.context.current_context` tells which rows it serves, which positions
    hold real tokens, where the prompt ends, and offers a store that lives as long as one generation.
    """

    kind: ClassVar[str]  # the name it is registered under; set by register_adapter

    @abstractmethod
    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        """The new output. (rows, positions, in), (rows, positions, out) -> (rows, positions, out)."""

    def config(self) -> dict[str, Any]:
        """The arguments of the constructor, as JSON: enough to build a module of the same shapes."""
        return {}

    @classmethod
    def restore(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Builds the module that ``config()`` and ``state_dict()`` describe."""
        module = cls(**config)
        module.load_state_dict(dict(tensors), strict=True)
        return module


A = TypeVar("A", bound=type[AdapterModule])
_REGISTRY: dict[str, type[AdapterModule] | str] = {}


def register_adapter(kind: str, target: str | None = None) -> Callable[[A], A]:
    """Registers a class as a decorator, or ``"module:Class"`` at once when ``target`` is given."""
    if target is not None:
        _REGISTRY.setdefault(kind, target)

    def decorate(cls: A) -> A:
        cls.kind = kind
        _REGISTRY[kind] = cls
        return cls

    return decorate


def adapter_class(kind: str) -> type[AdapterModule]:
    """The class registered under a name.

    Raises:
        UnknownName: no such adapter; the message lists those that are registered.
    """
    found = _REGISTRY.get(kind)
    if isinstance(found, str):
        module, _, name = found.partition(":")
        found = getattr(import_module(module), name)
        found.kind = kind
        _REGISTRY[kind] = found
    if found is None:
        raise UnknownName("adapter", kind, _REGISTRY)
    return found
