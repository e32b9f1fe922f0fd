"""The language model as the program sees it.

    lm = LanguageModel.load("bundled")
    lm.generate([lm.chat("Where is the Eiffel Tower?")])             # ["Paris"]
    lm.generate(["The capital of France is"] * 2, overlays=[None, edit], stop=["\\n"])
    for piece in lm.stream(lm.chat("Hello!")): ...
    lm.score(["The capital of France is"], ["Paris"])[0].mean_logprob

Which overlay counts: a call without ``overlays`` uses the one of the ``with lm.overlaid(...)`` block around it, if any;
a call with ``overlays`` uses exactly those, ``None`` being the model as loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from threading import Event
from typing import Any, Literal, Self, TypeGuard

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from knowledge.errors import InvalidInput
from language_model.architectures import ARCHITECTURES, Architecture, architecture_of
from language_model.batch import Batch, pad
from language_model.context_window import context_size
from language_model.fingerprint import fingerprint
from language_model.generation import generate_texts, stream_text
from language_model.hooks import Frame, HookBoard, Recorder
from language_model.loading import fuse_activations, load_pretrained
from language_model.overlay import Overlay
from language_model.prompts import Message
from language_model.room import free_bytes
from language_model.scoring import TargetScore, score_targets
from language_model.text import Form, Prompt, TextCodec
from language_model.tracing import Change, Trace, TraceRecorder


class LanguageModel:
    """One causal language model and its tokenizer. Safe to use from several threads; its weights are never written to.

    Args:
        model: any Hugging Face causal language model; it is set to evaluation mode and its weights are frozen.
        tokenizer: its tokenizer.
        name: what users see.
        memory_limit: bytes that work beside the loaded model may take; None: what is free when it begins.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str = "",
        *,
        memory_limit: int | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.memory_limit = memory_limit
        fuse_activations(self.model)
        self.tokenizer: Any = tokenizer
        self.name = name or model.config.model_type
        self.codec = TextCodec(tokenizer)
        self.hooks = HookBoard(self.model)
        self._accepted = frozenset(inspect.signature(model.forward).parameters)

    @classmethod
    def load(
        cls,
        name_or_path: str = "bundled",
        *,
        device: str | None = None,
        dtype: str | None = None,
        local_files_only: bool = False,
        memory_limit: int | None = None,
    ) -> Self:
        """Loads "bundled", a folder, or a name on the Hugging Face hub; see :func:`.loading.load_pretrained`.

        Raises:
            ModelNotFound: nothing there.
            ModelUnusable: something is there that cannot be used.
        """
        model, tokenizer = load_pretrained(name_or_path, device=device, dtype=dtype, local_files_only=local_files_only)
        return cls(model, tokenizer, name_or_path, memory_limit=memory_limit)

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def room(self) -> int | None:
        """Bytes that work beside the loaded model may take now; None where the device does not say."""
        return self.memory_limit if self.memory_limit is not None else free_bytes(self.device)

    @cached_property
    def architecture(self) -> Architecture:
        """Where this family keeps its parts.

        Raises:
            UnsupportedArchitecture: the family is not in the table; everything but weight edits works all the same.
        """
        return architecture_of(self.model.config)

    @property
    def num_layers(self) -> int:
        return self.architecture.num_layers(self.model.config)

    @property
    def hidden_size(self) -> int:
        return self.architecture.hidden_size(self.model.config)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the configuration and every weight; computed on first use, once."""
        return fingerprint(self.model)

    @property
    def has_chat(self) -> bool:
        """True when the tokenizer brings a chat template."""
        return self.codec.has_chat

    @cached_property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return context_size(self.model.config, self.tokenizer)

    @property
    def vocab_size(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)

    @cached_property
    def pad_id(self) -> int:
        """The token that fills up batches; which one does not matter, it is masked."""
        choices = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0)
        return next(int(token) for token in choices if token is not None and int(token) < self.vocab_size)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer: of the generation configuration, of the tokenizer, and of known chat formats."""
        named = getattr(self.model.generation_config, "eos_token_id", None)
        listed = named if isinstance(named, list) else [named]
        return self.codec.turn_end_ids | {int(token) for token in listed if token is not None}

    def module(self, name: str) -> nn.Module:
        """The module of that name.

        Raises:
            OverlayMismatch: there is none.
        """
        return self.hooks.module(name)

    def watch_blocks(self) -> None:
        """Lets a cancelled pass stop between two layers; families outside the table stop between passes."""
        row = ARCHITECTURES.get(self.model.config.model_type)
        if row is not None:
            self.hooks.watch([row.block(layer) for layer in range(row.num_layers(self.model.config))])

    # ------------------------------------------------------------------------------------------------ text

    def chat(self, text: str, history: Sequence[Message] = ()) -> list[Message]:
        """The messages of a chat that goes on with ``text``."""
        return [*history, {"role": "user", "content": text}]

    def render(self, prompt: Prompt) -> str:
        """The text that the model is given for a prompt."""
        return self.codec.render(prompt)

    def count_tokens(self, prompt: Prompt) -> int:
        return len(self.codec.encode(prompt))

    def target_ids(self, target: str, form: Form = "completion") -> list[int]:
        """Token ids of an answer after a prompt of that form; a leading space is added where the form wants one."""
        return self.codec.target_ids(target, form)

    def target_ids_after(self, prompt: Prompt, target: str) -> list[int]:
        """Token ids of an answer after this very prompt."""
        form: Form = "completion" if isinstance(prompt, str) else "chat"
        return self.codec.target_ids(target, form, after=prompt if isinstance(prompt, str) else None)

    # ------------------------------------------------------------------------------------------------ overlays

    @contextmanager
    def overlaid(self, overlay: Overlay | None) -> Iterator[Self]:
        """Everything this thread or task computes in the block sees the overlay; None is the model as loaded.

        Blocks nest, the innermost counts. On exit, also by an exception, exactly what was before is in force again.
        """
        self.hooks.prepare([overlay])
        with self.hooks.use(Frame(owner=self.hooks, overlays=(overlay,))):
            yield self

    @property
    def overlay(self) -> Overlay | None:
        """The overlay in force in this thread or task."""
        frame = self.hooks.current()
        return None if frame is None or frame.per_row else frame.overlays[0]

    def _rows(self, count: int, overlays: Sequence[Overlay | None] | None) -> list[Overlay | None]:
        if overlays is None:
            return [self.overlay] * count
        if len(overlays) != count:
            raise InvalidInput(
                f"There are {count} prompts but {len(overlays)} overlays; give one overlay for each prompt."
            )
        return list(overlays)

    # ------------------------------------------------------------------------------------------------ answers

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 48,
        overlays: Sequence[Overlay | None] | None = None,
        stop: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> list[str]:
        """Greedy answers, batched, white space at the ends removed.

        Args:
            prompts: strings to complete or chats to answer; forms may be mixed.
            max_new_tokens: at most so many tokens an answer, fewer where the context ends.
            overlays: one a prompt; see the module.
            stop: an answer ends before the first of these strings.
            cancel: when set, the computation stops before the next token and what there is comes back.

        Raises:
            PromptTooLong: a prompt leaves no room for an answer.
        """
        rows = self._rows(len(prompts), overlays)
        return generate_texts(self, prompts, rows, max_new_tokens, stop, cancel)

    def stream(
        self,
        prompt: Prompt,
        *,
        overlay: Overlay | None = None,
        max_new_tokens: int = 256,
        stop: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> Iterator[str]:
        """The greedy answer piece by piece; joined, the pieces are what :meth:`generate` returns.

        Each piece is computed when it is asked for, in the caller's thread. Closing the iterator, or setting
        ``cancel``, ends the computation before the next token. Without ``overlay`` the one in force at
        the call counts, to the end.
        """
        chosen = self.overlay if overlay is None else overlay
        return stream_text(self, prompt, chosen, max_new_tokens, stop, cancel)

    def score(
        self,
        prompts: Sequence[Prompt],
        targets: Sequence[str],
        *,
        overlays: Sequence[Overlay | None] | None = None,
    ) -> list[TargetScore]:
        """Log-probabilities of the targets after the prompts, row by row.

        Raises:
            PromptTooLong: prompt and target do not fit into the context.
        """
        if len(prompts) != len(targets):
            raise InvalidInput(
                f"There are {len(prompts)} prompts but {len(targets)} targets; give one target for each."
            )
        return score_targets(self, prompts, targets, self._rows(len(prompts), overlays))

    # ------------------------------------------------------------------------------------------------ passes

    def batch(
        self,
        prompts: Sequence[Prompt | Sequence[int]],
        targets: Sequence[str | Sequence[int]] | None = None,
        *,
        side: Literal["left", "right"] = "right",
    ) -> Batch:
        """Prompts, each with its target behind it, as padded tensors. Both may also be given as token ids."""
        heads = [self._ids(prompt) for prompt in prompts]
        tails: list[list[int]] = [[] for _ in heads]
        for number, target in enumerate(targets or ()):
            prompt = prompts[number]
            before: Prompt = "" if _is_ids(prompt) else prompt  # type: ignore[assignment]  # ids count as a completion
            tails[number] = self.target_ids_after(before, target) if isinstance(target, str) else list(target)
        rows = [head + tail for head, tail in zip(heads, tails, strict=True)]
        lengths = [len(head) for head in heads]
        return pad(rows, pad_id=self.pad_id, device=self.device, side=side, prompt_lengths=lengths)

    def _ids(self, prompt: Prompt | Sequence[int]) -> list[int]:
        return list(prompt) if _is_ids(prompt) else self.codec.encode(prompt)  # type: ignore[arg-type]

    def forward(
        self,
        batch: Batch,
        *,
        overlays: Sequence[Overlay | None] | None = None,
        recorder: Recorder | None = None,
    ) -> Tensor:
        """Logits (rows, positions, vocabulary) of one pass. Gradients flow where they are enabled and needed."""
        rows = self._rows(batch.shape[0], overlays)
        self.hooks.prepare(rows)
        frame = Frame(
            owner=self.hooks,
            overlays=tuple(rows),
            per_row=True,
            attention_mask=batch.attention_mask,
            last_prompt=batch.last_prompt,
            shape=batch.shape,
            recorder=recorder,
        )
        with self.hooks.use(frame):
            out = self.run_model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
            )
        logits: Tensor = out.logits
        return logits

    def trace(
        self,
        prompts: Sequence[Prompt | Sequence[int]] | Batch,
        *,
        targets: Sequence[str | Sequence[int]] | None = None,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        change_inputs: Mapping[str, Change] | None = None,
        change_outputs: Mapping[str, Change] | None = None,
        overlays: Sequence[Overlay | None] | None = None,
        grad: bool = False,
    ) -> Trace:
        """One pass with the inputs and outputs of the named modules, as they are after overlays and changes.

        Args:
            prompts: prompts, rows of token ids, or a batch.
            targets: what stands behind each prompt.
            inputs, outputs: modules to record.
            change_inputs, change_outputs: functions of (rows, positions, width) that replace a value on its way.
            overlays: one a row; see the module.
            grad: keep the graph; otherwise gradients are off.
        """
        batch = prompts if isinstance(prompts, Batch) else self.batch(prompts, targets)
        trace = Trace(batch)
        recorder = TraceRecorder(trace, inputs, outputs, change_inputs or {}, change_outputs or {})
        self.hooks.watch(recorder.names)
        with torch.enable_grad() if grad else torch.no_grad():
            trace.logits = self.forward(batch, overlays=overlays, recorder=recorder)
        return trace

    def run_model(self, **arguments: Any) -> Any:
        """Calls the model with those arguments that its family knows (BLOOM takes no position ids)."""
        if "input_ids" in self._accepted:
            arguments = {key: value for key, value in arguments.items() if key in self._accepted}
        return self.model(**arguments)


def _is_ids(prompt: Prompt | Sequence[int]) -> TypeGuard[Sequence[int]]:
    return not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], int)
