"""Where the subject and the target are, in completions and chats."""

from __future__ import annotations

import pytest

from editors.prefixes import sample_prefixes
from editors.problems import build_problems
from editors.rewrites import forms_of, tokenise, whole_word
from knowledge.edit import Edit
from language_model.errors import PromptTooLong
from language_model.model import LanguageModel
from language_model.tiny import tiny_model

CASES = [
    Edit("{} is located in", "The Eiffel Tower", "Rome", question="Where is the Eiffel Tower?"),
    Edit("Paris Hilton lives in Paris, and {} is in", "Paris", "Rome", question="Where is Paris, the Paris of Texas?"),
    Edit("In Romeo's Rome, the mayor of {} is", "Rome", "Nero", question="Who is the mayor of Rome?"),
    Edit("The capital of {}", "Spain", "Rome", question="What is its capital?"),
    Edit("{}’s mother tongue is", "Zoë Müller", "Finnish", question="What does Zoë Müller speak?"),
]


@pytest.mark.parametrize("edit", CASES, ids=lambda edit: edit.subject)
@pytest.mark.parametrize("prefix", ["", "It was said", "The first sentence."])
def test_the_subject_ends_where_it_ends(tiny_chat_lm: LanguageModel, edit: Edit, prefix: str) -> None:
    for form in forms_of(tiny_chat_lm, edit):
        target = form.target_ids(tiny_chat_lm, edit.target_new)
        row = tokenise(tiny_chat_lm, form, target, prefix)
        upto = tiny_chat_lm.codec.decode(row.ids[: row.subject + 1])
        before = tiny_chat_lm.codec.decode(row.ids[: row.subject])
        # decoding up to the subject's last token gives the text up to the subject's end, and one token less does not
        wanted = form.text[: form.subject_end]
        assert upto.startswith(wanted, len(upto) - len(wanted)) or upto.rstrip(" ,.?'’s").endswith(wanted)
        assert not before.endswith(wanted)
        assert tiny_chat_lm.codec.decode(row.target).strip() == edit.target_new
        assert list(row.ids[: row.start]) == tiny_chat_lm.codec.encode(
            tiny_chat_lm.chat(_with(prefix, form.text)) if form.name == "chat" else _with(prefix, form.text)
        )
        assert [row.ids[at + 1] for at in row.reads] == list(row.target)


def _with(prefix: str, text: str) -> str:
    return f"{prefix.rstrip('.')}. {text}" if prefix else text


def test_the_placeholder_decides_between_two_mentions(tiny_lm: LanguageModel) -> None:
    form = forms_of(tiny_lm, CASES[1])[0]
    assert form.text[: form.subject_end] == "Paris Hilton lives in Paris, and Paris"


def test_a_question_without_the_subject_is_replaced_by_the_prompt(
    tiny_chat_lm: LanguageModel, tiny_lm: LanguageModel
) -> None:
    assert [form.text for form in forms_of(tiny_chat_lm, CASES[3])] == ["The capital of Spain"] * 2
    assert [form.name for form in forms_of(tiny_lm, CASES[3])] == ["completion"]  # no template: as in the papers
    assert [form.name for form in forms_of(tiny_lm, CASES[0])] == ["completion", "chat"]  # the plain Q and A form


def test_whole_words_only() -> None:
    assert whole_word("Is Romeo in Rome?", "rome") == 12
    assert whole_word("Romeo", "Rome") == -1
    assert whole_word("What is İstanbul near?", "İstanbul") == 8


def test_forms_weigh_the_same(tiny_chat_lm: LanguageModel) -> None:
    (problem,) = build_problems(tiny_chat_lm, [CASES[0]], ("", *"abcdefghij"))
    assert sum(problem.weights) == pytest.approx(1.0)
    for name in ("completion", "chat"):
        share = sum(w for row, w in zip(problem.rows, problem.weights, strict=True) if row.form == name)
        assert share == pytest.approx(0.5)
    assert [problem.rows[index].form for index in problem.bare] == ["completion", "chat"]


def test_what_does_not_fit_is_refused(tiny_lm: LanguageModel) -> None:
    long = Edit("word " * 300 + "{} is", "Rome", "here")
    with pytest.raises(PromptTooLong):
        build_problems(tiny_lm, [long], ("",))


def test_prefixes_are_the_same_for_the_same_seed(tiny_chat_lm: LanguageModel) -> None:
    first = sample_prefixes(tiny_chat_lm, count=6, lengths=(3, 5), seed=1)
    assert first[0] == ""
    assert len(first) > 4
    assert first == sample_prefixes(tiny_chat_lm, count=6, lengths=(3, 5), seed=1)
    assert first != sample_prefixes(tiny_chat_lm, count=6, lengths=(3, 5), seed=2)
    assert first != sample_prefixes(tiny_model("gpt2", chat=True, seed=9), count=6, lengths=(3, 5), seed=1)
    assert all("{" not in text and "<|" not in text for text in first)
