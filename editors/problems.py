"""An edit made ready for the optimiser: all its token rows, with their weights.

    problems = build_problems(lm, edits, prefixes)
    problems[0].rows            # the rewrite bare and behind each prefix, as completion and as chat
    problems[0].essence         # texts about the subject whose continuation must not change

Each form (completion, chat) weighs the same, whatever the number of its rows: an edit that only held in one of them
would not show in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from editors.rewrites import Form, Row, forms_of, tokenise
from knowledge.edit import Edit
from language_model.model import LanguageModel

ESSENCE = ("{} is a",)  # 2202.05262, section 3.1: what the subject is must stay
# of a form's weight goes to its prompt without a prefix, which is what people write; there the subject often stands at
# the very beginning, where its key is unlike all others, and one row of 21 did not hold (the papers give it 1 of 21)
BARE_SHARE = 0.3
CHAT_PREFIXES = 4  # rows behind a prefix in the chat form, where the template already varies the context


@dataclass(frozen=True)
class Problem:
    """One edit's rows.

    Attributes:
        rows: rewrites with their targets.
        weights: one a row, sum 1.
        bare: indices of the rows without a prefix: the first is the completion form's.
        essence: rows without a target; their last position is compared with the unedited model.
    """

    edit: Edit
    rows: tuple[Row, ...]
    weights: tuple[float, ...]
    bare: tuple[int, ...]
    essence: tuple[Row, ...]


def build_problems(
    lm: LanguageModel,
    edits: Sequence[Edit],
    prefixes: Sequence[str],
    *,
    essence: Sequence[str] = ESSENCE,
    chat: bool = True,
) -> list[Problem]:
    """Rows of every edit.

    Args:
        prefixes: texts put before the rewrite; the empty one is added where it is missing.
        essence: wordings with ``{}`` for the subject.
        chat: also in the chat form, where the model has one.

    Raises:
        PalimpsestError: an edit is longer than the model's context.
    """
    return [_problem(lm, edit, prefixes, essence, chat) for edit in edits]


def _problem(lm: LanguageModel, edit: Edit, prefixes: Sequence[str], essence: Sequence[str], chat: bool) -> Problem:
    texts = ("", *(prefix for prefix in prefixes if prefix))
    forms = [form for form in forms_of(lm, edit) if chat or form.name == "completion"]
    rows: list[Row] = []
    weights: list[float] = []
    bare: list[int] = []
    for form in forms:
        chosen = texts if form.name == "completion" else texts[: 1 + CHAT_PREFIXES]
        target = form.target_ids(lm, edit.target_new)
        bare.append(len(rows))
        rows += [tokenise(lm, form, target, prefix) for prefix in chosen]
        others = len(chosen) - 1
        bare_share = max(BARE_SHARE, 1.0 / len(chosen))
        weights.append(bare_share / len(forms))
        weights += [(1.0 - bare_share) / (len(forms) * max(1, others))] * others
    known = tuple(tokenise(lm, _essence_form(text, edit.subject)) for text in essence)
    return Problem(edit, tuple(rows), tuple(weights), tuple(bare), known)


def _essence_form(wording: str, subject: str) -> Form:
    text = wording.replace("{}", subject)
    return Form("completion", text, wording.index("{}") + len(subject), len(subject), text)
