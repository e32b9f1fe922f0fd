"""Looking inside a pass, and changing it on the way: inputs and outputs of named modules, gradients allowed.

    trace = lm.trace(prompts, inputs=[lm.architecture.down(5)], outputs=[lm.architecture.block(5)])
    keys = trace.input(lm.architecture.down(5), at=trace.last_prompt)       # (rows, in)

    delta = torch.zeros(width, requires_grad=True)
    trace = lm.trace(prompts, targets=targets, change_outputs={name: lambda value: value + delta}, grad=True)
    loss = -trace.target_logprobs().mean(); loss.backward()

Rows are padded on the right, so the token with index i of ``lm.codec.encode(prompt)`` is at position i.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from knowledge.errors import InvalidInput
from language_model.batch import Batch

Change = Callable[[Tensor], Tensor]
"""Takes a module's (rows, positions, width) value and returns another of the same shape."""


@dataclass(eq=False)
class Trace:
    """What one pass computed. ``inputs`` and ``outputs`` map names to (rows, positions, width)."""

    batch: Batch
    logits: Tensor = field(default_factory=lambda: torch.empty(0))  # (rows, positions, vocabulary)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    @property
    def last_prompt(self) -> Tensor:
        """(rows,) position of the last token of each prompt."""
        return self.batch.last_prompt

    def input(self, name: str, at: Tensor | Sequence[int] | None = None) -> Tensor:
        """The input of a module: (rows, positions, in), or (rows, in) at one position a row."""
        return _at(self.inputs[name], at)

    def output(self, name: str, at: Tensor | Sequence[int] | None = None) -> Tensor:
        """The output of a module: (rows, positions, out), or (rows, out) at one position a row."""
        return _at(self.outputs[name], at)

    def target_logprobs(self) -> Tensor:
        """(rows,) mean log-probability of each row's target tokens, differentiable.

        Raises:
            InvalidInput: the trace was made without targets.
        """
        batch = self.batch
        if bool((batch.prompt_lengths == batch.lengths).any()):
            raise InvalidInput("This trace has rows without a target; pass targets= to trace().")
        logprobs = self.logits[:, :-1].float().log_softmax(dim=-1)
        found = logprobs.gather(2, batch.input_ids[:, 1:, None])[..., 0]  # (rows, positions - 1)
        places = torch.arange(1, batch.shape[1], device=found.device)
        ends = (batch.offsets + batch.lengths)[:, None]
        mask = (places > batch.last_prompt[:, None]) & (places < ends)
        return (found * mask).sum(dim=1) / mask.sum(dim=1)


class TraceRecorder:
    """Fills a :class:`Trace` from the hooks."""

    def __init__(
        self,
        trace: Trace,
        inputs: Sequence[str],
        outputs: Sequence[str],
        change_inputs: Mapping[str, Change],
        change_outputs: Mapping[str, Change],
    ) -> None:
        self._trace = trace
        self._inputs, self._outputs = frozenset(inputs), frozenset(outputs)
        self._change_inputs, self._change_outputs = change_inputs, change_outputs
        self.names = tuple(dict.fromkeys((*inputs, *outputs, *change_inputs, *change_outputs)))

    def on_input(self, name: str, value: Tensor) -> Tensor | None:
        change = self._change_inputs.get(name)
        new = value if change is None else change(value)
        if name in self._inputs:
            self._trace.inputs[name] = new.clone()  # some families (Falcon) go on to change it in place
        return None if change is None else new

    def on_output(self, name: str, value: Tensor) -> Tensor | None:
        change = self._change_outputs.get(name)
        new = value if change is None else change(value)
        if name in self._outputs:
            self._trace.outputs[name] = new.clone()
        return None if change is None else new


def _at(value: Tensor, at: Tensor | Sequence[int] | None) -> Tensor:
    if at is None:
        return value
    index = torch.as_tensor(at, device=value.device)
    return value[torch.arange(value.shape[0], device=value.device), index]
