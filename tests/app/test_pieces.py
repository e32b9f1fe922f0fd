"""Settings, chats, files, escaping and rendering, each by itself."""

from __future__ import annotations

import inspect
import json
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from app.conversations import Conversations, Turn, UnknownChat
from app.fact_desk import moment
from app.fact_files import read_rows, write_rows
from app.settings import SettingsError, load_settings
from app.ui import compare_html, facts_html, transcript, weights_html
from app.ui.chat import ChatTab
from app.ui.evidence import chosen_words, evidence_html, evidence_markdown, title_of
from app.ui.page import Page, Runs, status_html
from app.ui.render import guarded, literal, safe_markdown
from app.ui.transcript import messages_of
from app.ui.weights_html import ledger_html
from app.uploads import unpacked
from app.views import ConsolidationView, CorrectionView, DueFact, EventView, FactPage, FactView, GateRates, Status
from knowledge.errors import InvalidInput
from tests.app import fakes
from tests.app.fakes import FakeService

HOSTILE = "<img src=x onerror=alert(1)>\"'`"
ANSWER: Any = {
    "answer": "Rome",
    "source": "memory",
    "strategy": "ike",
    "hits": [{"fact_id": 1, "text": HOSTILE, "score": 0.9}],
    "gate": {"in_scope": True, "score": 0.9, "threshold": 0.6},
    "steps": [{"subquestion": HOSTILE, "answer": "Rome"}],
    "weight_edits": [{"id": 1, "method": "rome", "facts": [HOSTILE]}],
    "seconds": 0.2,
}


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_PORT", "8000")
    monkeypatch.setenv("PALIMPSEST_DEVICE", "")
    assert load_settings().port == 8000 and load_settings(port=9000).port == 9000
    assert load_settings().device is None and load_settings(data="~/x").data == Path.home() / "x"
    with pytest.raises(SettingsError, match="PALIMPSEST_MODE='wild'"):
        load_settings(mode="wild")


def test_chats_are_kept_and_belong_to_one_browser(tmp_path: Path) -> None:
    chats = Conversations(tmp_path / "chats.sqlite")
    mine, other, chat = chats.new_owner(), chats.new_owner(), chats.new_id()
    assert chats.turns(mine, chat) == [] and chats.titles(mine) == []
    chats.append(mine, chat, Turn("Where is the Eiffel Tower?"))
    chats.update_last(mine, chat, answer="Paris", evidence=ANSWER)
    chats.append(mine, chat, Turn("And Big Ben?", "London"))
    again = Conversations(tmp_path / "chats.sqlite")
    assert [turn.answer for turn in again.turns(mine, chat)] == ["Paris", "London"]
    assert again.turns(mine, chat)[0].evidence == ANSWER
    assert again.titles(mine)[0].title == "Where is the Eiffel Tower?" and again.titles(other) == []
    for forbidden in (
        again.turns,
        again.delete,
        lambda owner, chat: again.append(owner, chat, Turn("x")),
        lambda owner, chat: again.cut(owner, chat, 0),
    ):
        with pytest.raises(UnknownChat):
            forbidden(other, chat)
    assert again.cut(mine, chat, 1) == "And Big Ben?" and len(again.turns(mine, chat)) == 1
    again.delete(mine, chat)
    assert again.titles(mine) == [] and again.turns(mine, chat) == []
    assert (tmp_path / "chats.sqlite").stat().st_mode & 0o077 == 0


def test_the_transcript_maps_messages_back_to_turns() -> None:
    turns = [Turn("a", "b", evidence=ANSWER), Turn("c", "d|e", unedited="x\ny"), Turn("f")]
    messages = transcript.messages_of(turns)
    assert [message["role"] for message in messages] == ["user", "assistant", "assistant", "user", "assistant", "user"]
    assert [transcript.turn_at(turns, index) for index in range(7)] == [0, 0, 0, 1, 1, 2, None]
    assert "d\\|e" in messages[4]["content"] and "x<br>y" in messages[4]["content"]
    assert transcript.history_of(turns, 5) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d|e"},
    ]
    assert transcript.history_of(turns, 0) == []
    assert transcript.plain_text([{"type": "text", "text": "a &lt; b"}]) == "a < b"


def test_failed_turns_say_why_and_stay_out_of_the_history() -> None:
    turns = [Turn("a", "", evidence={"error": HOSTILE}), Turn("b", "par", stopped=True)]
    shown = transcript.messages_of(turns)
    assert "&lt;img" in shown[1]["content"] and "stopped" in shown[3]["content"]
    assert transcript.history_of(turns, 5) == []


def test_hostile_text_is_escaped_everywhere(tmp_path: Path) -> None:
    service = FakeService(tmp_path)
    outcome = service.facts.add(subject=HOSTILE, relation=HOSTILE, object=HOSTILE, source=HOSTILE)
    fact = replace(outcome.fact, reason=HOSTILE, question=HOSTILE)
    preview = replace(service.facts.preview_triple("s", HOSTILE, "o"), conflict=fact)
    entry = replace(
        service.weights.apply("rome", fact_ids=[fact.id]), facts=(HOSTILE,), warnings=(HOSTILE,), method=HOSTILE
    )
    imported = replace(entry, facts=(), imported_from=HOSTILE)
    rates = GateRates(0.6, 0.9, 0.01, 4, 5, ((HOSTILE, 0.5, 2),), HOSTILE)
    chain = {"subquestion": HOSTILE, "retrieved": {"fact_id": 1, "text": HOSTILE}, "source": "memory"}
    verdict = ConsolidationView(False, 1, (HOSTILE,), (HOSTILE,), (HOSTILE,), (HOSTILE,), 0.5, reasons=(HOSTILE,))
    found = service.comparing.run([fact.id], ["base", "ike"])
    found = replace(found, rows=tuple(replace(row, title=HOSTILE) for row in found.rows))
    pages = [
        evidence_html(ANSWER, rates),
        evidence_html({**ANSWER, "steps": [chain], "chosen": {"mode": HOSTILE, "strategy": HOSTILE}}),
        evidence_markdown(ANSWER),
        evidence_markdown({**ANSWER, "steps": [chain], "strategy": HOSTILE}),
        facts_html.similar_html(HOSTILE, [fact]),
        facts_html.changes_html([EventView("add", HOSTILE, HOSTILE, HOSTILE, 1, 1)]),
        facts_html.corrections_html([CorrectionView(1, HOSTILE, HOSTILE, HOSTILE, HOSTILE)]),
        weights_html.undone_html(entry, [entry, imported]),
        weights_html.due_html([DueFact(1, 3, HOSTILE)], 3),
        weights_html.verdict_html(verdict),
        weights_html.verdict_html(replace(verdict, kept=True)),
        facts_html.page_html(FactPage((fact,), 1, 1, 1), HOSTILE),
        facts_html.page_html(FactPage((), 0, 1, 1), HOSTILE),
        facts_html.detail_html(fact, service.facts.history(fact.id)),
        facts_html.preview_html(preview, HOSTILE),
        facts_html.conflict_html(preview),
        facts_html.overwritten_html(fact, fact),
        ledger_html([entry, imported]),
        compare_html.table_html(found),
        compare_html.probes_html(found),
        status_html(Status(HOSTILE, "failed", 0, 0, HOSTILE)),
        safe_markdown(HOSTILE),
    ]
    for page in pages:
        assert "<img" not in page and "<b>?" not in page, page


def test_markdown_keeps_code_as_it_is() -> None:
    assert safe_markdown("a < b `x < y` & c") == "a &lt; b `x < y` &amp; c"
    assert safe_markdown("```\n<b>\n") == "```\n<b>\n"


def test_literal_text_has_no_links_and_no_markup() -> None:
    assert literal("[x](http://a) *b* <i>\n# c") == "\\[x\\]\\(http://a\\) \\*b\\* &lt;i&gt; \\# c"


def test_evidence_says_what_was_not_asked() -> None:
    quiet = {**ANSWER, "source": "model", "strategy": "model", "hits": [], "steps": [], "weight_edits": []}
    assert "not asked" in evidence_html({**quiet, "gate": {"in_scope": False, "score": 0.0, "threshold": 1.0}})
    assert title_of(quiet) == "Evidence: from the model · 200 ms"
    assert "Why this answer" in evidence_html(None)


@pytest.mark.parametrize(
    ("answer", "chosen", "words"),
    [
        (
            {"route": {"strategy": "ike", "reason": "a stored fact is in scope"}},
            ("auto", "auto"),
            "Strategy IKE, chosen by the router: a stored fact is in scope.",
        ),
        ({}, ("auto", "auto"), "Strategy IKE, chosen by the router."),  # of a chat from before reasons were kept
        ({}, ("both", "ike"), "Strategy IKE, chosen by you. You chose: memory and weights."),
        (
            {"strategy": "graph_walk", "route": {"strategy": "graph_walk", "reason": "memory holds all 2 hops"}},
            ("auto", "auto"),
            "Strategy graph walk, chosen by the router: memory holds all 2 hops.",
        ),
        (
            {"strategy": "model", "source": "model", "route": {"strategy": "mello", "reason": "several hops"}},
            ("auto", "auto"),
            "the router chose MeLLo, which found nothing in memory to use (several hops).",
        ),
        (
            {"strategy": "model", "source": "model"},
            ("auto", "mello"),
            "The model answered by itself: you chose MeLLo, which found nothing in memory to use.",
        ),
        ({"strategy": "model"}, ("base", "auto"), "you chose: the unedited model, memory was not asked."),
        (
            {"strategy": "model", "route": {"strategy": "model", "reason": "no stored fact is in scope"}},
            ("auto", "auto"),
            "chosen by the router: no stored fact is in scope.",
        ),
    ],
)
def test_evidence_says_which_strategy_and_who_chose_it(
    answer: dict[str, Any], chosen: tuple[str, str], words: str
) -> None:
    whole: Any = {**ANSWER, **answer, "chosen": {"mode": chosen[0], "strategy": chosen[1]}}
    assert words in chosen_words(whole)
    assert words in evidence_html(whole)


def test_evidence_shows_the_gates_measured_rates() -> None:
    rates = GateRates(0.6, 0.9275, 0.0071, 400, 982, (("same subject, other relation", 0.0275, 182),), "held-out")
    shown = evidence_html(ANSWER, rates)
    assert "Measured at 0.60" in shown and "92.8%" in shown and "0.7%" in shown and "n 982" in shown
    assert "same subject, other relation" in shown and "2.8%" in shown
    assert "No rates were measured" in evidence_html(ANSWER, GateRates(0.3))
    skipped: Any = {**ANSWER, "gate": {"in_scope": False, "score": 0.0, "threshold": 1.0}}
    assert "Measured" not in evidence_html(skipped, rates)


def test_evidence_shows_each_hop_of_a_chain_with_its_source() -> None:
    hop = {"subquestion": "Where is it?", "tentative": "Paris", "retrieved": {"fact_id": 7, "text": "It is in Rome."}}
    steps = [
        {**hop, "verdict": "contradicts", "answer": "Rome", "source": "memory"},
        {"subquestion": "Of which country?", "retrieved": None, "answer": "Italy", "source": "model"},
    ]
    shown = evidence_html({**ANSWER, "steps": steps})
    for words in ("Where is it?", "Paris", "It is in Rome. (#7)", "contradicts", "Of which country?", "Italy"):
        assert words in shown
    assert shown.count("from memory</span>") == 2 and shown.count("from the model</span>") == 1
    assert "from memory" in evidence_markdown({**ANSWER, "steps": steps})


def test_the_facts_tab_shows_validity_source_actor_and_history() -> None:
    fact = FactView(
        3, "It is in Rome.", "It", "located_in", "Rome", "superseded", source="a book", actor="ann",
        cardinality="multi", supersedes_id=2,
        valid_from="2020-01-31T10:00:00+00:00", valid_to="2021-02-01T10:00:00+00:00",
    )  # fmt: skip
    row = facts_html.page_html(FactPage((fact,), 1, 1, 1))
    assert "from a book" in row and "by ann" in row and "valid 31 Jan 2020 – 1 Feb 2021" in row and "superseded" in row
    detail = facts_html.detail_html(fact, [EventView("supersede", "Paris → Rome", "2021-02-01T10:00:00+00:00", "bob")])
    for words in ("a book", "ann", "31 Jan 2020", "1 Feb 2021", "#2", "several objects", "by bob", "supersede"):
        assert words in detail
    assert "in force on 2019" in facts_html.page_html(FactPage((), 0, 1, 1), "", "2019")


def test_dates_are_read_and_others_refused() -> None:
    since, until = moment("2026-01-31"), moment("2026-01-31", end=True)
    assert since and until and since.tzinfo and (until - since).total_seconds() > 86_000 and moment(" ") is None
    with pytest.raises(InvalidInput, match="2026-01-31"):
        moment("yesterday")


def test_the_ledger_shows_what_the_guard_saw_and_undo_offers_to_make_again(service: FakeService) -> None:
    first = service.weights.apply("rome", text="The Louvre is located in Oslo.")
    second = service.weights.apply("r-rome", text="The Eiffel Tower is located in Rome.")
    shown = ledger_html([second, first])
    assert "other answers kept 100% before, 75% after (n 24)" in shown and "25% of 24 other answers" in shown
    assert "on top of #1" in shown and "1.23%" in shown
    offer = weights_html.undone_html(first, service.ledger.dependents(first.id))
    assert 'data-act="recompute" data-key="2"' in offer and "Eiffel Tower" in offer
    assert "recompute" not in weights_html.undone_html(second, [])


def test_uploads_are_unpacked_flat_and_only_what_an_adapter_has(tmp_path: Path) -> None:
    packed = tmp_path / "a.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../adapter_config.json", "{}")
        archive.writestr("deep/adapter_model.safetensors", "x")
        archive.writestr("run.py", "x")
    with unpacked([packed]) as path:
        assert sorted(file.name for file in path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert not path.exists() and not (tmp_path.parent / "adapter_config.json").exists()
    single = tmp_path / "b.safetensors"
    single.write_text("x")
    with unpacked([single]) as path:
        assert path.is_file() and path.suffix == ".safetensors"
    (tmp_path / "bad.zip").write_text("no zip")
    (tmp_path / "x.py").write_text("x")
    for files, words in (([], "Choose a file"), ([tmp_path / "bad.zip"], "no zip"), ([tmp_path / "x.py"], "no part")):
        with pytest.raises(InvalidInput, match=words), unpacked(files):
            pass


def test_chats_of_an_earlier_version_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "chats.sqlite"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            "CREATE TABLE chat (id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL,"
            " updated_at REAL NOT NULL);"
            "CREATE TABLE turn (chat_id TEXT NOT NULL, position INTEGER NOT NULL, question TEXT NOT NULL, answer TEXT,"
            " unedited TEXT, evidence TEXT, stopped INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (chat_id, position));"
            "INSERT INTO chat VALUES ('c', 'me', 'a', 1); INSERT INTO turn VALUES ('c', 0, 'a', 'b', NULL, NULL, 0);"
        )
    chats = Conversations(path)
    chats.append("me", "c", Turn("No, I meant x.", "y", about="a"))
    assert [(turn.answer, turn.about) for turn in chats.turns("me", "c")] == [("b", None), ("y", "a")]


def test_an_unforeseen_error_of_a_handler_is_a_message_too() -> None:
    def broken() -> None:
        raise ZeroDivisionError("<b>")

    def broken_stream() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("<b>")

    with pytest.raises(gr.Error, match="Internal error, ZeroDivisionError: &lt;b&gt;"):
        guarded(broken)()
    with pytest.raises(gr.Error, match="Internal error"):
        list(guarded(broken_stream)())


def test_csv_of_a_comparison_holds_no_formulas(service: FakeService) -> None:
    found = service.comparing.run(["The Eiffel Tower is located in Rome."], ["base", "ike"])
    found = replace(found, probes=(replace(found.probes[0], prompt="=1+1"),))
    text = compare_html.csv_text(found)
    assert "'=1+1" in text and text.startswith("method,metric,value")
    assert "No probe fits" in compare_html.probes_html(found, missed="ike")
    assert "Paris" in compare_html.probes_html(found, missed="base")


def test_files_round_trip_and_bad_rows_are_reported(tmp_path: Path) -> None:
    facts = [{"subject": "a, b", "relation": "r", "object": 'c "d"', "statement": "s"}]
    for kind in ("csv", "json", "jsonl"):
        path = tmp_path / f"facts.{kind}"
        write_rows(path, facts)
        ((_, row),) = list(read_rows(path))
        assert isinstance(row, dict) and (row["subject"], row["object"]) == ("a, b", 'c "d"')
    path = tmp_path / "bad.csv"
    path.write_text("subject;relation;object\na;b;c\nonly two;cells\n\nd;e;f\n")
    rows = list(read_rows(path))
    assert [line for line, _ in rows] == [2, 3, 5] and isinstance(rows[1][1], InvalidInput)
    path = tmp_path / "bad.jsonl"
    path.write_text('"A sentence."\n["a", "b", "c"]\n{"fact": "x"}\n[1]\n{oops\n')
    kinds = [type(row).__name__ for _, row in read_rows(path)]
    assert kinds == ["dict", "dict", "dict", "InvalidInput", "InvalidInput"]
    for name, text in (("x.txt", ""), ("x.csv", "foo,bar\n1,2\n"), ("x.json", "5"), ("y.json", "{")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InvalidInput):
            list(read_rows(tmp_path / name))
    with pytest.raises(InvalidInput):
        write_rows(tmp_path / "x.txt", facts)
    assert not list(tmp_path.glob(".*"))


def answering(service: FakeService) -> tuple[ChatTab, Iterator[Any]]:
    """A chat ("me", "chat") with one answered question, and a second whose answer has begun; its rest is to come."""
    tab = ChatTab(Page(service))
    tab._begin("Where is Big Ben?", "me", "chat")
    assert list(tab._answer("me", "chat", "auto", "auto", False))
    tab._begin("Tell me something long", "me", "chat")
    begun = tab._answer("me", "chat", "auto", "auto", False)
    assert next(begun)
    return tab, begun


def test_an_answer_that_ends_late_changes_no_other_turn(service: FakeService) -> None:
    """Undone, asked again or asked on while it was written: what comes after it belongs to nobody."""
    chats = service.chats
    tab, begun = answering(service)
    tab._undo("me", "chat", SimpleNamespace(index=len(messages_of(chats.turns("me", "chat"))) - 1))
    list(begun)
    assert [(turn.question, turn.answer) for turn in chats.turns("me", "chat")] == [("Where is Big Ben?", "London")]
    chats.delete("me", "chat")
    tab, begun = answering(service)
    tab._begin("Where is the Colosseum?", "me", "chat")
    list(begun)
    ended, asked = chats.turns("me", "chat")[1:]
    assert ended.stopped and (ended.answer or "").startswith("word")
    assert asked.answer is None
    assert tab._turns("me", "chat")[-1].answer is None  # it is being answered, so nobody closes it
    list(tab._answer("me", "chat", "auto", "auto", False))
    assert chats.turns("me", "chat")[2].answer == "Rome"


def test_starting_a_run_cancels_the_one_before() -> None:
    runs = Runs()
    first, second = runs.start("chat"), runs.start("chat")
    assert first.is_set() and not second.is_set()
    runs.end("chat", first)
    assert runs.current("chat") is second and runs.stop("chat") and second.is_set()
    runs.end("chat", second)
    assert not runs.stop("chat")


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("app.service:Service", fakes.FakeService),
        ("app.fact_desk:FactDesk", fakes.FakeFacts),
        ("app.weight_desk:WeightDesk", fakes.FakeWeights),
        ("app.compare_desk:CompareDesk", fakes.FakeComparing),
        ("app.benchmark_desk:BenchmarkDesk", fakes.FakeBenchmarking),
        ("app.ledger_desk:LedgerDesk", fakes.FakeLedger),
        ("app.consolidation_desk:ConsolidationDesk", fakes.FakeConsolidating),
        ("app.correction_desk:CorrectionDesk", fakes.FakeCorrections),
    ],
)
def test_the_fake_has_the_methods_of_the_real_one(real: str, fake: type) -> None:
    module, _, name = real.partition(":")
    cls = getattr(__import__(module, fromlist=[name]), name)
    for method, function in inspect.getmembers(cls, inspect.isfunction):
        if method.startswith("_") or method == "edit_of" or method == "edits":
            continue
        assert hasattr(fake, method), method
        wanted = list(inspect.signature(function).parameters)
        assert list(inspect.signature(getattr(fake, method)).parameters) == wanted, method


def test_commands_import_neither_torch_nor_gradio() -> None:
    names = "('torch', 'gradio', 'transformers', 'faiss')"
    code = f"import json, sys, app.cli; print(json.dumps([m for m in {names} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_fact_views_know_whether_they_count() -> None:
    fact = FactView(1, "s", "a", "b", "c", "current")
    assert fact.current and not replace(fact, status="superseded").current


def test_a_fact_that_a_weight_edit_holds_too_says_so() -> None:
    fact = FactView(1, "s", "a", "b", "c", "current")
    marked = replace(fact, in_weights=7)
    assert "in the weights too, as #7 there" in facts_html.page_html(FactPage((marked,), 1, 1, 1))
    assert "weight edit #7" in facts_html.detail_html(marked, [])
    assert "weights" not in facts_html.page_html(FactPage((fact,), 1, 1, 1))
