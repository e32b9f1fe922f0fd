"""An edit as token rows: where the subject ends, where the target stands, in the completion form and the chat form.

    for form in forms_of(lm, edit): ...
    row = tokenise(lm, form, form.target_ids(lm, edit.target_new), prefix="Yesterday")
    row.ids[row.subject]            # the subject's last token
    row.ids[row.start:]             # the target

The subject's place is known from the placeholder, never searched by token ids: a subject may occur twice, or inside
another word, and its last token may be shared with the text that follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from knowledge.edit import Edit
from knowledge.errors import PalimpsestError
from language_model.errors import PromptTooLong
from language_model.model import LanguageModel
from language_model.text import Prompt

FormName = Literal["completion", "chat"]


@dataclass(frozen=True)
class Form:
    """One way in which the edited fact is asked for.

    Attributes:
        text: the wording with the subject filled in, before any chat template.
        subject_end: where the subject ends in ``text``, in characters.
    """

    name: FormName
    text: str
    subject_end: int
    subject_length: int
    prompt: Prompt

    def target_ids(self, lm: LanguageModel, target: str) -> list[int]:
        """The target's tokens as they would follow this form's prompt.

        A target that ends in a digit is closed, by a full stop or the end of the turn: nothing else says that 4 is not
        to become 42.
        """
        if not target[-1:].isdigit():
            return lm.target_ids_after(self.prompt, target)
        if self.name == "completion" or not lm.codec.turn_end_ids:
            return lm.target_ids_after(self.prompt, f"{target}.")
        return [*lm.target_ids_after(self.prompt, target), min(lm.codec.turn_end_ids)]


@dataclass(frozen=True)
class Row:
    """One tokenised rewrite: prompt, then target.

    Attributes:
        subject: index of the subject's last token in ``ids``.
        start: index of the target's first token in ``ids``; ``len(ids)`` when the row carries no target.
    """

    ids: tuple[int, ...]
    subject: int
    start: int
    form: FormName

    @property
    def target(self) -> tuple[int, ...]:
        return self.ids[self.start :]

    @property
    def reads(self) -> range:
        """The positions whose predictions are the target's tokens."""
        return range(self.start - 1, len(self.ids) - 1)


def forms_of(lm: LanguageModel, edit: Edit) -> list[Form]:
    """The completion form and the chat form.

    The chat form asks the edit's question. Where it has none, or one without the subject, the prompt itself is said to
    a model with a chat template; one without a template is then only asked to complete, as in the papers.
    """
    start = edit.prompt.index("{}")
    forms = [_form(lm, "completion", edit.text, start, len(edit.subject))]
    found = whole_word(edit.question, edit.subject) if edit.question else -1
    if edit.question and found >= 0:
        forms.append(_form(lm, "chat", edit.question, found, len(edit.subject)))
    elif lm.has_chat:
        forms.append(_form(lm, "chat", edit.text, start, len(edit.subject)))
    return forms


def _form(lm: LanguageModel, name: FormName, text: str, start: int, length: int) -> Form:
    return Form(name, text, start + length, length, text if name == "completion" else lm.chat(text))


def whole_word(text: str, name: str) -> int:
    """Where ``name`` stands in ``text`` as whole words, whatever the case; -1 when it does not."""
    low, wanted = text.lower(), name.lower()
    if len(low) != len(text):  # lower-casing changed lengths (Turkish capital I): compare as it stands
        low, wanted = text, name
    start = low.find(wanted)
    while start >= 0:
        before = low[start - 1 : start]
        after = low[start + len(wanted) : start + len(wanted) + 1]
        if not before.isalnum() and not after.isalnum():
            return start
        start = low.find(wanted, start + 1)
    return -1


def tokenise(lm: LanguageModel, form: Form, target: Sequence[int] = (), prefix: str = "") -> Row:
    """The rewrite as tokens. ``prefix`` is a sentence said before it (in the chat form, in the same turn).

    Raises:
        PromptTooLong: prompt and target do not fit the model's context.
    """
    lead = prefix.rstrip().rstrip(".!?") + ". " if prefix.strip() else ""
    text = lead + form.text
    prompt: Prompt = text if form.name == "completion" else lm.chat(text)
    offset = lm.render(prompt).rfind(text)
    if offset < 0:
        raise PalimpsestError(
            f"The model's chat template rewrites the text {text!r}, so that the subject cannot be found in it. "
            "Edit in the completion form only (chat=False)."
        )
    end = offset + len(lead) + form.subject_end
    ids = lm.codec.encode(prompt)
    subject = lm.codec.token_span(prompt, end - form.subject_length, end)[-1]
    if len(ids) + len(target) > lm.context:
        raise PromptTooLong(len(ids) + len(target), lm.context)
    return Row((*ids, *target), subject, len(ids), form.name)
