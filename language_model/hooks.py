"""How overlays and traces reach the modules: one forward hook a touched module, reading a context variable.

A :class:`Frame` says what holds for the passes of the current thread or task: an overlay for every row, or one a row,
and possibly a recorder. Frames live in a context variable, so two threads on one model never see each other's, and
leaving a ``with`` block restores exactly what was before, also after an exception. Hooks stay installed and do nothing
without a frame.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch import Tensor, nn

from language_model.architectures import is_in_out
from language_model.context import ForwardContext, use_context
from language_model.errors import OverlayMismatch
from language_model.overlay import Adapter, Overlay


class Cancelled(Exception):
    """Raised inside a pass whose frame was cancelled; the decoder that started the pass catches it."""


class Recorder(Protocol):
    """What a trace wants to see and change. Both get (rows, positions, width); a returned tensor replaces the value."""

    def on_input(self, name: str, value: Tensor) -> Tensor | None: ...

    def on_output(self, name: str, value: Tensor) -> Tensor | None: ...


@dataclass(frozen=True, eq=False)
class Frame:
    """What holds for the forward passes of one ``with`` block.

    ``overlays`` has one element for all rows of any batch, or exactly one a row (``per_row``).
    """

    owner: object
    overlays: tuple[Overlay | None, ...] = (None,)
    per_row: bool = False
    attention_mask: Tensor | None = None  # (rows, cached + positions)
    last_prompt: Tensor | None = None  # (rows,), -1 where the prompt's end is in the cache
    step: int = 0
    shape: tuple[int, int] | None = None  # (rows, positions) of this pass, for families that flatten both
    states: dict[Any, dict[str, Any]] = field(default_factory=dict)
    recorder: Recorder | None = None
    cancel: threading.Event | None = None  # looked at before every watched module

    def groups(self) -> list[tuple[Overlay, list[int] | None]]:
        """Each non-empty overlay with its rows; None stands for all rows."""
        if not self.per_row or all(overlay is self.overlays[0] for overlay in self.overlays):
            return [(self.overlays[0], None)] if self.overlays and self.overlays[0] else []
        rows: dict[int, tuple[Overlay, list[int]]] = {}
        for row, overlay in enumerate(self.overlays):
            if overlay:
                rows.setdefault(id(overlay), (overlay, []))[1].append(row)
        return list(rows.values())


_FRAME: ContextVar[tuple[Frame, ...]] = ContextVar("palimpsest_frames", default=())


class HookBoard:
    """The hooks of one model."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = dict(model.named_modules())
        self._installed: set[str] = set()
        self._lock = threading.Lock()
        self._checked: WeakSet[Overlay] = WeakSet()

    def module(self, name: str) -> nn.Module:
        """The module of that name.

        Raises:
            OverlayMismatch: there is none.
        """
        if name not in self._modules:
            raise OverlayMismatch(
                f"The model has no module {name!r}. The overlay was made for another model, or the name is misspelt."
            )
        return self._modules[name]

    def current(self) -> Frame | None:
        """The innermost frame of this model in this thread or task."""
        return next((frame for frame in reversed(_FRAME.get()) if frame.owner is self), None)

    @contextmanager
    def use(self, frame: Frame) -> Iterator[None]:
        token = _FRAME.set((*_FRAME.get(), frame))
        try:
            yield
        finally:
            _FRAME.reset(token)

    def prepare(self, overlays: Sequence[Overlay | None]) -> None:
        """Checks that overlays fit the model and installs the hooks they need. Cheap the second time.

        Raises:
            OverlayMismatch: a module is missing or a shape differs.
        """
        for overlay in overlays:
            if overlay is None or overlay in self._checked:
                continue
            for name, part in overlay:
                module = self.module(name)
                if not isinstance(part, Adapter):
                    _check_shape(name, module, part.shape)
            self.watch(overlay.modules)
            self._checked.add(overlay)

    def watch(self, names: Sequence[str]) -> None:
        """Installs the hooks of these modules."""
        with self._lock:
            for name in names:
                if name not in self._installed:
                    self._install(name, self.module(name))
                    self._installed.add(name)

    def _install(self, name: str, module: nn.Module) -> None:
        # Plain functions, not bound methods: copy.deepcopy(model) shares them and they then see a foreign module.
        def before(seen: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            frame = self.current() if seen is module else None
            if frame is not None and frame.cancel is not None and frame.cancel.is_set():
                raise Cancelled
            if frame is None or frame.recorder is None:
                return None
            value = _first_input(args, kwargs)
            new = frame.recorder.on_input(name, _shaped(value, frame))
            return None if new is None else _with_input(args, kwargs, new.reshape(value.shape))

        def after(seen: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            frame = self.current() if seen is module else None
            if frame is None:
                return None
            value = _first_tensor(output)
            changed = _overlaid(name, _first_input(args, kwargs), value, frame)
            if frame.recorder is not None:
                new = frame.recorder.on_output(name, _shaped(changed, frame))
                changed = changed if new is None else new.reshape(value.shape)
            return None if changed is value else _with_first(output, changed)

        module.register_forward_pre_hook(before, with_kwargs=True)
        module.register_forward_hook(after, with_kwargs=True)


def _overlaid(name: str, input: Tensor, output: Tensor, frame: Frame) -> Tensor:
    """The output of one module with the frame's overlays; the very same tensor where none applies."""
    result = output
    for overlay, rows in frame.groups():
        if name not in overlay.parts:
            continue
        parts = overlay.placed(name, output.device, output.dtype)
        x, y = _shaped(input, frame), _shaped(result, frame)
        index = None if rows is None else torch.tensor(rows, device=output.device)
        if index is not None:
            x, y = x[index], y[index]
        for part in parts:
            if not isinstance(part, Adapter):
                y = y + part.apply(x)
        for number, part in enumerate(parts):
            if isinstance(part, Adapter):
                bare = frame.shape is None  # lm.model was called directly: each pass is its own
                state = {} if bare else frame.states.setdefault((id(overlay), name, number), {})
                with use_context(_context(frame, x, index, state)):
                    y = part.module(x, y).to(output.dtype)
        if index is not None:
            y = _shaped(result, frame).index_copy(0, index, y)
        result = y.reshape(output.shape)
    return result


def _context(frame: Frame, x: Tensor, index: Tensor | None, state: dict[str, Any]) -> ForwardContext:
    rows = torch.arange(x.shape[0], device=x.device) if index is None else index
    mask = frame.attention_mask
    last = frame.last_prompt
    if last is None:  # a bare pass through lm.model: taken to end with the prompt
        last = torch.full((int(rows.max()) + 1,), x.shape[1] - 1, device=x.device)
    return ForwardContext(rows, None if mask is None else mask[rows], last[rows], frame.step, state)


def _check_shape(name: str, module: nn.Module, shape: tuple[int, int]) -> None:
    weight: Tensor = module.weight  # type: ignore[assignment]
    own = tuple(weight.shape) if is_in_out(module) else tuple(weight.shape)[::-1]
    if own != shape:
        raise OverlayMismatch(
            f"The overlay changes {name} as a matrix of {shape[0]} inputs and {shape[1]} outputs, but the model's has "
            f"{own[0]} and {own[1]}. The overlay was made for another model; apply the edit again on this one."
        )


def _shaped(value: Tensor, frame: Frame) -> Tensor:
    """(rows, positions, width), also where a family flattens rows and positions into one (OPT)."""
    if value.dim() == 2 and frame.shape is not None and value.shape[0] == frame.shape[0] * frame.shape[1]:
        return value.view(*frame.shape, value.shape[-1])
    return value


def _first_tensor(output: Any) -> Tensor:
    """A module's main output. Blocks return a tensor (GPT-2, Llama) or a tuple (GPT-J): never index a tensor."""
    found = output if isinstance(output, Tensor) else output[0]
    assert isinstance(found, Tensor)
    return found


def _with_first(output: Any, new: Tensor) -> Any:
    return new if isinstance(output, Tensor) else type(output)((new, *output[1:]))


def _first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    found = args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None))
    assert isinstance(found, Tensor)
    return found


def _with_input(args: tuple[Any, ...], kwargs: dict[str, Any], new: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if args:
        return (new, *args[1:]), kwargs
    name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
    return args, {**kwargs, name: new}
