"""Between text and tokens: chat templates, leading spaces, special tokens, where a stretch of text lies.

Two forms of prompt exist. A *completion* is a string that the model continues. A *chat* is a list of messages; it goes
through the tokenizer's chat template, or, for models without one, becomes ``Q: ...`` and ``A: ...`` lines, with system
messages above them and ``A:`` at the end.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from jinja2 import TemplateError

from knowledge.errors import InvalidInput
from language_model.errors import ModelUnusable
from language_model.prompts import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Prompt = str | Sequence[Message]
Form = Literal["chat", "completion"]

_PLAIN_STOPS = ("\nQ:", "\n\n")
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_turn|>", "<|eom_id|>")


class TextCodec:
    """Text to tokens and back for one tokenizer.

    >>> codec.encode("The capital of France is")              # with the family's own start token, if any
    >>> codec.target_ids("Paris", after="The capital of France is")   # the leading space is added here, once
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer: Any = tokenizer  # transformers leaves most of its tokenizers untyped
        self.has_chat = bool(getattr(tokenizer, "chat_template", None))

    # ------------------------------------------------------------------------------------------------ prompts

    def render(self, prompt: Prompt) -> str:
        """The text that the model is given, generation prompt included."""
        if isinstance(prompt, str):
            return prompt
        messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in prompt]
        if not messages:
            raise InvalidInput("The chat is empty; give at least one message.")
        return self._template(messages) if self.has_chat else _plain(messages)

    def _template(self, messages: list[dict[str, str]], *, generation_prompt: bool = True) -> str:
        def apply(these: list[dict[str, str]]) -> str:
            # enable_thinking is read by templates that know it (Qwen3) and ignored by all others.
            return str(
                self.tokenizer.apply_chat_template(
                    these, tokenize=False, add_generation_prompt=generation_prompt, enable_thinking=False
                )
            )

        try:
            return apply(messages)
        except TemplateError as error:
            merged = _without_system(messages)  # some templates (Gemma) refuse the system role
            if merged == messages:
                raise ModelUnusable(f"The model's chat template refuses this chat: {error}.") from error
            try:
                return apply(merged)
            except TemplateError as second:
                raise ModelUnusable(f"The model's chat template refuses this chat: {second}.") from second

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt. A template writes special tokens itself; else the tokenizer adds its start token."""
        templated = self.has_chat and not isinstance(prompt, str)
        return self.encode_text(self.render(prompt), special=not templated)

    def encode_text(self, text: str, *, special: bool) -> list[int]:
        """Token ids of rendered text; never with an end token, which would end the answer before it began."""
        ids = list(self.tokenizer(text, add_special_tokens=special)["input_ids"])
        if special and len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id:
            bare = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
            if not bare or bare[-1] != ids[-1]:
                ids.pop()
        if not ids:
            start = self.tokenizer.bos_token_id
            start = self.tokenizer.eos_token_id if start is None else start
            if start is None:
                raise InvalidInput("The prompt is empty; give some text.")
            ids = [int(start)]
        return ids

    def token_span(self, prompt: Prompt, start: int, end: int) -> range:
        """Which tokens of ``encode(prompt)`` hold the characters ``start`` to ``end`` of ``render(prompt)``.

        A token counts when it shares a character with the stretch that is no white space.
        """
        text = self.render(prompt)
        inside = text[start:end].strip() if 0 <= start < end <= len(text) else ""
        if not inside:
            raise InvalidInput(
                f"There is no text at characters {start} to {end} of a prompt of {len(text)} characters."
            )
        start = text.index(inside, start)
        end = start + len(inside)
        templated = self.has_chat and not isinstance(prompt, str)
        if self.tokenizer.is_fast:
            encoded = self.tokenizer(text, add_special_tokens=not templated, return_offsets_mapping=True)
            offsets = encoded["offset_mapping"]
            hits = [i for i, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
            if hits:
                return range(hits[0], hits[-1] + 1)
        # Tokenizers without offsets: the token counts of the text before and up to the end.
        before = len(self.encode_text(text[:start].rstrip() or " ", special=not templated)) if start else 0
        return range(before, len(self.encode_text(text[:end], special=not templated)))

    # ------------------------------------------------------------------------------------------------ answers

    def target_ids(self, target: str, form: Form = "completion", *, after: str | None = None) -> list[int]:
        """Token ids of an answer as the model would write it after a prompt of this form, without special tokens.

        Args:
            target: the answer; white space at its ends does not count.
            form: which kind of prompt comes before.
            after: the rendered prompt, where known: after white space no space is added, nor after scripts without
                spaces.

        Raises:
            InvalidInput: the target is empty.
        """
        target = target.strip()
        if not target:
            raise InvalidInput("The target is empty; give the text of an answer.")
        if form == "chat" and self.has_chat:
            lead, anchor = self.chat_lead, "\n"
        else:
            lead, anchor = _space_after(after), ":"
        joined = self._bare(anchor + lead + target)
        head = self._bare(anchor)
        # Some tokenizers write a space of their own before the first word: only what follows an anchor is true.
        return joined[len(head) :] if joined[: len(head)] == head else self._bare(lead + target)

    @cached_property
    def chat_lead(self) -> str:
        """What the chat template writes between its generation prompt and an answer: a space, or nothing."""
        question: dict[str, str] = {"role": "user", "content": "x"}
        opened = self._template([question])
        full = self._template([question, {"role": "assistant", "content": "Yes"}], generation_prompt=False)
        if not full.startswith(opened):
            return ""
        lead, found, _ = full[len(opened) :].partition("Yes")
        return lead if found and lead.strip() == "" else ""

    def _bare(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def stops(self, prompt: Prompt) -> tuple[str, ...]:
        """Strings that end an answer to this prompt by its form alone."""
        return _PLAIN_STOPS if not isinstance(prompt, str) and not self.has_chat else ()

    @cached_property
    def turn_end_ids(self) -> frozenset[int]:
        """End-of-turn tokens of the vocabulary, beside the ones that the model's configuration names."""
        known = self.tokenizer.get_vocab()
        special = {*self.tokenizer.all_special_tokens, *getattr(self.tokenizer, "added_tokens_encoder", {})}
        ends = {int(known[token]) for token in _TURN_ENDS if token in known and token in special}
        eos = self.tokenizer.eos_token_id
        return frozenset(ends | ({int(eos)} if eos is not None else set()))


def _plain(messages: Sequence[dict[str, str]]) -> str:
    marks = {"user": "Q: ", "assistant": "A: "}
    lines = [f"{marks.get(m['role'], '')}{m['content']}" + ("\n" if m["role"] == "system" else "") for m in messages]
    return "\n".join([*lines, "A:"])


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]]:
    system = "\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [dict(message) for message in messages if message["role"] != "system"]
    if not system or not rest:
        return messages
    rest[0]["content"] = f"{system}\n\n{rest[0]['content']}"
    return rest


def _space_after(text: str | None) -> str:
    if not text:
        return " "
    last = text[-1]
    return "" if last.isspace() or unicodedata.east_asian_width(last) in "WF" else " "
