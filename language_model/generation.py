"""Greedy decoding in the calling thread, one overlay a row, that stops computing when told to.

The loop is our own because ``generate`` of transformers streams from a second thread, which goes on computing after the
reader has left. Here a step is computed when the next piece of text is asked for, and never otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

import torch

from language_model.batch import Batch, chunks, pad
from language_model.context_window import room_for
from language_model.hooks import Cancelled, Frame
from language_model.overlay import Overlay
from language_model.text import Prompt, TextCodec

if TYPE_CHECKING:
    from language_model.model import LanguageModel

_TOKENS, _ROWS = 16384, 64  # of one batch, padding and answers included


class Decoder:
    """A batch of rows being continued token by token.

        decoder = Decoder(lm, rows, overlays)
        while (tokens := decoder.step()) is not None: ...

    Only :meth:`step` computes. It sets the frame and turns gradients off for its own duration, so that a generator may
    be suspended, closed or moved to another thread between steps.
    """

    def __init__(
        self,
        lm: LanguageModel,
        rows: Sequence[Sequence[int]],
        overlays: Sequence[Overlay | None],
        cancel: Event | None = None,
    ) -> None:
        self._lm = lm
        self._cancel = cancel
        if cancel is not None:
            lm.watch_blocks()
        self._batch: Batch = pad(rows, pad_id=lm.pad_id, device=lm.device, side="left")
        self._mask = self._batch.attention_mask
        self._position = self._batch.position_ids[:, -1:]
        self._overlays = tuple(overlays)
        self._states: dict[Any, dict[str, Any]] = {}
        self._cache: Any = None
        self._next = self._batch.input_ids
        self._steps = 0

    def step(self) -> list[int]:
        """Computes one position and returns the chosen token of every row.

        Raises:
            Cancelled: ``cancel`` was set, before the step or between two layers of it.
        """
        if self._cancel is not None and self._cancel.is_set():
            raise Cancelled
        first = self._steps == 0
        if not first:
            self._mask = torch.cat([self._mask, self._mask.new_ones(self._mask.shape[0], 1)], dim=1)
            self._position = self._position + 1
        frame = Frame(
            owner=self._lm.hooks,
            overlays=self._overlays,
            per_row=True,
            attention_mask=self._mask,
            last_prompt=self._batch.last_prompt if first else torch.full_like(self._batch.lengths, -1),
            step=self._steps,
            shape=(self._next.shape[0], self._next.shape[1]),
            states=self._states,
            cancel=self._cancel,
        )
        with self._lm.hooks.use(frame), torch.no_grad():
            out = self._lm.run_model(
                input_ids=self._next,
                attention_mask=self._mask,
                position_ids=self._batch.position_ids if first else self._position,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = out.logits[:, -1, :].float().argmax(dim=-1)
        self._cache = out.past_key_values
        self._next = chosen[:, None]
        self._steps += 1
        return [int(token) for token in chosen.tolist()]


class TextAssembler:
    """Turns tokens into text as they come, never cutting a character or a stop string in two.

    What :meth:`push` returned so far, joined, is always a prefix of the final text: the text before the first stop
    string, without white space at its ends.
    """

    def __init__(self, codec: TextCodec, stop: Sequence[str] = ()) -> None:
        self._codec = codec
        self._stop = tuple(s for s in stop if s)
        self._ids: list[int] = []
        self._from = 0  # tokens from here on are decoded again with each new one: some decoders look back
        self._seen = 0  # up to here their text is in _raw
        self._raw = ""  # all decoded text
        self._emitted = 0  # how much of _raw went out
        self.finished = False

    def push(self, token: int) -> str:
        """Takes one token and returns the text that became certain with it."""
        self._ids.append(token)
        known = self._codec.decode(self._ids[self._from : self._seen])
        text = self._codec.decode(self._ids[self._from :])
        if text.endswith("\ufffd"):  # the rest of a character is still to come
            return ""
        self._raw += text[len(known) :]
        self._from, self._seen = self._seen, len(self._ids)
        return self._release(final=False)

    def end(self) -> str:
        """The text still held back, once no token follows; half a character at the very end is dropped."""
        known = self._codec.decode(self._ids[self._from : self._seen])
        self._raw += self._codec.decode(self._ids[self._from :])[len(known) :].rstrip("\ufffd")
        self._from = self._seen = len(self._ids)
        return self._release(final=True)

    @property
    def text(self) -> str:
        """What has gone out so far."""
        return self._raw[: self._emitted].lstrip()

    def _release(self, *, final: bool) -> str:
        if self.finished:
            return ""
        end = len(self._raw)
        hits = [at for at in map(self._find, self._stop) if at >= 0]
        if hits:
            end, self.finished = min(hits), True
        elif not final:
            end -= _held(self._raw, self._stop)
        end = max(self._emitted, len(self._raw[:end].rstrip()))
        delta = self._raw[self._emitted : end]
        if not self._raw[: self._emitted].strip():
            delta = delta.lstrip()
        self._emitted = end
        return delta

    def _find(self, stop: str) -> int:
        r"""Where a stop string stands. White space before the answer does not end it: "\n" counts only after it."""
        blank = len(self._raw) - len(self._raw.lstrip())
        return self._raw.find(stop, 0 if stop.strip() else blank)


def _held(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end could be the beginning of a stop string."""
    longest = 0
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), longest, -1):
            if text.endswith(stop[:size]):
                longest = size
                break
    return longest


def stream_text(
    lm: LanguageModel,
    prompt: Prompt,
    overlay: Overlay | None,
    max_new_tokens: int,
    stop: Sequence[str],
    cancel: Event | None,
) -> Iterator[str]:
    """The pieces of one answer. Closing the iterator or setting ``cancel`` ends the computation before the next token.

    Raises:
        PromptTooLong: at the call, before anything is computed.
    """
    row = lm.codec.encode(prompt)
    budget = room_for(len(row), max_new_tokens, lm.context)
    lm.hooks.prepare([overlay])
    assembler = TextAssembler(lm.codec, (*stop, *lm.codec.stops(prompt)))
    return _pieces(lm.end_ids, Decoder(lm, [row], [overlay], cancel), assembler, budget)


def _pieces(end_ids: frozenset[int], decoder: Decoder, assembler: TextAssembler, budget: int) -> Iterator[str]:
    for _ in range(budget):
        try:
            token = decoder.step()[0]
        except Cancelled:
            return
        if token in end_ids:
            break
        if delta := assembler.push(token):
            yield delta
        if assembler.finished:
            return
    if delta := assembler.end():
        yield delta


def generate_texts(
    lm: LanguageModel,
    prompts: Sequence[Prompt],
    overlays: Sequence[Overlay | None],
    max_new_tokens: int,
    stop: Sequence[str],
    cancel: Event | None,
) -> list[str]:
    """The answers to any number of prompts, in order, batched by length. A set ``cancel`` returns what there is."""
    rows = [lm.codec.encode(prompt) for prompt in prompts]
    budgets = [room_for(len(row), max_new_tokens, lm.context) for row in rows]
    lm.hooks.prepare(overlays)
    texts = [TextAssembler(lm.codec, (*stop, *lm.codec.stops(prompt))) for prompt in prompts]
    sizes = [len(row) + budget for row, budget in zip(rows, budgets, strict=True)]
    for group in chunks(sizes, tokens=_TOKENS, rows=_ROWS):
        decoder = Decoder(lm, [rows[i] for i in group], [overlays[i] for i in group], cancel)
        _fill(lm.end_ids, decoder, [texts[i] for i in group], [budgets[i] for i in group])
    return [text.text for text in texts]


def _fill(end_ids: frozenset[int], decoder: Decoder, texts: Sequence[TextAssembler], budgets: Sequence[int]) -> None:
    """Continues one batch until every row has ended; rows that end early are computed on and not read."""
    open_rows = set(range(len(texts)))
    for done in range(max(budgets)):
        open_rows -= {row for row in open_rows if done >= budgets[row]}
        if not open_rows:
            break
        try:
            tokens = decoder.step()
        except Cancelled:
            break
        for row in list(open_rows):
            if tokens[row] in end_ids:
                open_rows.discard(row)
                continue
            texts[row].push(tokens[row])
            if texts[row].finished:
                open_rows.discard(row)
    for text in texts:
        text.end()
