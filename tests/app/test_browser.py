"""The page in a real browser, over a fake service: what a user does, in the order in which they do it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from app.settings import load_settings
from tests.app.conftest import Served, Window, free_port
from tests.app.fakes import FakeService

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

EIFFEL = "The Eiffel Tower is located in Rome."
HOSTILE = "<img src=x onerror=alert(1)> ${alert(2)} {{value}}"


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as wait

    wait.set_options(timeout=30_000)  # a busy machine takes its time
    return wait(locator)


def last_answer(window: Window, page: Any = None) -> Any:
    return (page or window.page).locator("#chat .bot.message .message:not(.thought) .prose").last


def test_add_a_fact_ask_again_and_undo(window: Window) -> None:
    page = window.page
    window.ask("Where is the Eiffel Tower?")
    expect(last_answer(window)).to_have_text("Paris")
    expect(page.locator("#evidence")).to_contain_text("from the model")
    window.add(EIFFEL)
    expect(page.locator("#fact-result")).to_contain_text("Written")
    expect(page.locator("#fact-table li")).to_contain_text(EIFFEL)
    expect(page.locator("#header")).to_contain_text("1 fact")
    window.ask("So where is the Eiffel Tower?")
    expect(last_answer(window)).to_have_text("Rome")
    window.tab("Evidence")
    expect(page.locator("#evidence")).to_contain_text("a stored fact applies")
    expect(page.locator("#evidence")).to_contain_text(EIFFEL)
    window.ask("Where is Big Ben?")
    expect(last_answer(window)).to_have_text("London")
    window.tab("Facts")
    page.locator("#fact-undo").click()
    expect(page.locator("#fact-table")).to_contain_text("Nothing is written over yet")
    window.ask("Where is the Eiffel Tower now?")
    expect(last_answer(window)).to_have_text("Paris")
    page.locator("#fact-redo").click()
    expect(page.locator("#fact-table li")).to_contain_text(EIFFEL)


def test_the_evidence_under_an_answer_unfolds(window: Window) -> None:
    window.add(EIFFEL)
    expect(window.page.locator("#fact-result")).to_contain_text("Written")
    window.ask("Where is the Eiffel Tower?")
    fold = window.page.locator("#chat .thought-group").last
    expect(fold).to_contain_text("Evidence: from memory")
    inside = fold.get_by_text("score 0.83, threshold 0.61")
    expect(inside).not_to_be_visible()
    fold.locator(".title").click()
    expect(inside).to_be_visible()
    expect(fold).to_contain_text(EIFFEL)


def test_preview_present_answer_and_conflict(window: Window) -> None:
    page = window.page
    window.tab("Facts")
    page.locator("#fact-line textarea").fill(EIFFEL)
    expect(page.locator("#fact-preview .chip").nth(1)).to_have_text("Rome")
    page.locator("#fact-line textarea").blur()
    expect(page.locator("#fact-preview")).to_contain_text("The model now answers: Paris")
    page.locator("#fact-add").click()
    expect(page.locator("#fact-table li")).to_contain_text(EIFFEL)
    window.add("The Eiffel Tower is located in London.")
    expect(page.locator("#conflict")).to_contain_text("Memory says something else")
    page.locator("#conflict-cancel").click()
    expect(page.locator("#conflict")).not_to_be_visible()
    page.locator("#fact-add").click()
    page.locator("#conflict-replace").click()
    expect(page.locator("#fact-result")).to_contain_text("Overwritten")
    expect(page.locator("#fact-table li")).to_have_count(1)
    page.locator("#past input").check()
    expect(page.locator("#fact-table .erased")).to_have_text(EIFFEL)
    window.add("This is no fact at all")
    expect(page.locator("#fact-result")).to_contain_text("not understood")


def test_open_overwrite_remove_restore_search_and_pages(window: Window, served: Served) -> None:
    page, facts = window.page, served[0].facts
    for number in range(15):
        facts.add(subject=f"Thing {number}", relation="location", object=f"Town {number}")
    window.tab("Facts")
    expect(page.locator("#fact-table li")).to_have_count(12)
    page.get_by_role("button", name="Next page").click()
    expect(page.locator("#fact-table li")).to_have_count(3)
    expect(page.locator("#fact-table")).to_contain_text("2 of 2")
    page.locator("#fact-search textarea, #fact-search input").first.fill("Town 14")
    expect(page.locator("#fact-table li")).to_have_count(1)
    page.get_by_role("button", name="Open fact 15").click()
    expect(page.locator("#fact-detail")).to_contain_text("History")
    page.locator("#new-object textarea, #new-object input").first.fill("Oslo")
    page.locator("#fact-save").click()
    expect(page.locator("#fact-result")).to_contain_text("Overwritten: The Thing 14 is located in Oslo.")
    page.locator("#fact-search textarea, #fact-search input").first.fill("Oslo")
    page.get_by_role("button", name="Remove fact 16").click()
    expect(page.locator("#fact-table")).to_contain_text("No fact matches")
    page.locator("#past input").check()
    page.get_by_role("button", name="Restore fact 16").click()
    expect(page.get_by_role("button", name="Remove fact 16")).to_be_visible()


def begin_long_answer(window: Window, service: FakeService) -> None:
    """Asks for an answer that takes ten seconds, and waits for its first words."""
    service.delay = 0.05
    window.page.locator("#ask textarea").fill("Tell me something long")
    window.page.locator("#ask textarea").press("Enter")
    expect(window.page.locator("#chat .bot.message").last).to_contain_text("word word")


def test_stop_while_streaming_then_retry(window: Window, served: Served) -> None:
    page, service = window.page, served[0]
    begin_long_answer(window, service)
    page.locator("#stop").click()
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#chat .bot.message")).to_contain_text("stopped")
    assert len(last_answer(window).inner_text().split()) < 150
    service.delay = 0.0
    page.get_by_role("button", name="Retry").last.click()
    expect(page.locator("#chat .thought-group")).to_have_count(1)
    assert len(last_answer(window).inner_text().split()) == 200
    expect(page.locator("#chat .user.message")).to_have_count(1)


def test_escape_stops_and_ctrl_enter_retries(window: Window, served: Served) -> None:
    page, service = window.page, served[0]
    begin_long_answer(window, service)
    page.keyboard.press("Escape")
    expect(page.locator("#chat .bot.message")).to_contain_text("stopped")
    service.delay = 0.0
    page.keyboard.press("Control+Enter")
    expect(page.locator("#chat .thought-group")).to_have_count(1)


def test_asking_on_while_an_answer_is_written_answers_both_in_their_places(window: Window, served: Served) -> None:
    page, service = window.page, served[0]
    begin_long_answer(window, service)
    page.locator("#ask textarea").fill("Where is Big Ben?")
    page.locator("#ask textarea").press("Enter")
    expect(last_answer(window)).to_have_text("London")
    expect(page.locator("#chat .thought-group")).to_have_count(1)
    expect(page.locator("#send")).to_be_visible()
    first = page.locator("#chat .bot.message").first
    expect(first).to_contain_text("word word")
    expect(first).to_contain_text("stopped")


def test_a_chat_deleted_while_it_answers_leaves_the_next_one_alone(window: Window, served: Served) -> None:
    page, service = window.page, served[0]
    window.ask("Where is Big Ben?")
    begin_long_answer(window, service)
    page.locator("#delete-chat").click()
    expect(page.locator("#chat .bot.message")).to_have_count(0)
    expect(page.locator("#send")).to_be_visible()
    window.ask("Where is the Colosseum?")
    expect(last_answer(window)).to_have_text("Rome")


def test_undo_and_edit_a_message(window: Window) -> None:
    page = window.page
    window.ask("Where is Big Ben?")
    window.ask("Where is the Colosseum?")
    expect(page.locator("#chat .thought-group")).to_have_count(2)
    page.get_by_role("button", name="Undo", exact=True).locator("visible=true").last.click()
    expect(page.locator("#chat .user.message")).to_have_count(1)
    expect(page.locator("#ask textarea")).to_have_value("Where is the Colosseum?")
    page.locator("#chat").get_by_role("button", name="Edit").first.click()
    page.locator("#chat textarea").fill("Where is the Brandenburg Gate?")
    page.locator("#chat").get_by_role("button", name="Submit").click()
    expect(last_answer(window)).to_have_text("Berlin")
    expect(page.locator("#chat .user.message")).to_have_count(1)


def test_hostile_text_is_shown_as_text(window: Window) -> None:
    page = window.page
    window.add(f"The {HOSTILE} is located in {HOSTILE}.")
    expect(page.locator("#fact-table")).to_contain_text(HOSTILE)
    window.ask(f"Where is the {HOSTILE}?")
    expect(page.locator("#chat .user.message").last).to_contain_text(HOSTILE)
    expect(last_answer(window)).to_have_text(HOSTILE)
    page.locator("#chat .thought-group .title").last.click()
    expect(page.locator("#chat .thought-group").last).to_contain_text(HOSTILE)
    window.tab("Evidence")
    expect(page.locator("#evidence")).to_contain_text(HOSTILE)
    window.tab("Weights")
    page.locator("#weight-line textarea").fill(HOSTILE)
    page.locator("#weight-apply").click()
    expect(page.locator(".toast-body")).to_contain_text("not understood")
    assert page.locator("img[src=x]").count() == 0


def test_the_toast_escapes_what_it_quotes(window: Window, served: Served) -> None:
    served[0].weights.apply = _refuse  # type: ignore[method-assign]
    window.tab("Weights")
    window.page.locator("#weight-line textarea").fill("x")
    window.page.locator("#weight-apply").click()
    expect(window.page.locator(".toast-body")).to_contain_text(HOSTILE)
    assert window.page.locator(".toast-body img").count() == 0
    expect(window.page.locator("#weight-apply")).to_be_enabled()
    expect(window.page.locator("#weight-result .progress")).to_have_count(0)


def _refuse(*_: Any, **__: Any) -> Any:
    from knowledge.errors import InvalidInput

    raise InvalidInput(f"Refused: {HOSTILE}")


def test_a_correction_in_words_by_the_button_and_in_the_chat(window: Window, served: Served) -> None:
    page = window.page
    expect(page.locator("#meant-open")).not_to_be_visible()
    window.ask("Where is the Colosseum?")
    page.locator("#meant-open").click()
    page.locator("#meant textarea").fill(f"the film {HOSTILE}")
    page.locator("#meant-keep").click()
    expect(last_answer(window)).to_have_text("As you meant it")
    expect(page.locator("#chat .user.message").last).to_contain_text(f"No, I meant: the film {HOSTILE}")
    expect(page.locator("#evidence")).to_contain_text("the user has corrected a question like this one")
    expect(page.locator("#evidence")).to_contain_text("about Where is the Colosseum?")
    window.ask("Where is Big Ben?")
    window.ask("No, I meant the bell.")
    expect(last_answer(window)).to_have_text("As you meant it")
    assert [row.question for row in served[0].corrections.rows] == ["Where is the Colosseum?", "Where is Big Ben?"]
    window.tab("Facts")
    page.get_by_role("button", name="Corrections in words").click()
    page.get_by_role("button", name="Take correction 2 back").click()
    expect(page.get_by_role("button", name="Restore correction 2")).to_be_visible()
    window.ask("Where is Big Ben?")
    expect(last_answer(window)).to_have_text("London")
    page.locator("#mode input").click()
    page.get_by_role("option", name="unedited").click()
    window.ask("No, I meant the clock.")
    expect(page.locator("#chat .bot.message").last).to_contain_text("A correction in words is kept in memory")
    assert page.locator("img[src=x]").count() == 0


def test_the_evidence_names_the_strategy_who_chose_it_and_the_gates_rates(window: Window) -> None:
    page = window.page
    window.add(EIFFEL)
    expect(page.locator("#fact-result")).to_contain_text("Written")
    window.ask("Where is the Eiffel Tower?")
    window.tab("Evidence")
    expect(page.locator("#evidence")).to_contain_text("Strategy IKE, chosen by the router: a stored fact is in scope")
    page.locator("#evidence summary").click()
    expect(page.locator("#evidence")).to_contain_text("lets through 97.0% of the questions")
    expect(page.locator("#evidence tbody tr")).to_have_count(2)
    page.locator("#strategy input").click()
    page.get_by_role("option", name="IKE").click()
    window.ask("Where is the Eiffel Tower today?")
    expect(page.locator("#evidence")).to_contain_text("Strategy IKE, chosen by you")


def test_facts_show_validity_and_changes_that_can_be_undone(window: Window) -> None:
    page = window.page
    window.add(EIFFEL)
    expect(page.locator("#fact-table")).to_contain_text("by user · valid since")
    page.get_by_role("button", name="Open fact 1").click()
    for words in ("valid from", "valid to", "recorded", "one object at a time", "by user"):
        expect(page.locator("#fact-detail")).to_contain_text(words)
    page.get_by_role("button", name="All changes").click()
    page.get_by_role("button", name="Undo change 1").click()
    expect(page.locator("#fact-table")).to_contain_text("Nothing is written over yet")
    page.locator("#as-of textarea, #as-of input").first.fill("yesterday")
    page.locator("#as-of textarea, #as-of input").first.press("Enter")
    expect(page.locator("#fact-table")).to_contain_text("is no date")


def test_undo_of_a_weight_edit_offers_to_make_later_ones_again(window: Window) -> None:
    page = window.page
    window.tab("Weights")
    for sentence in (EIFFEL, "The Louvre is located in Oslo."):
        page.locator("#weight-line textarea").fill(sentence)
        page.locator("#weight-apply").click()
        expect(page.locator("#ledger")).to_contain_text(sentence)
    expect(page.locator("#ledger")).to_contain_text("other answers kept 100% before, 75% after (n 24)")
    page.locator("#ledger li").last.get_by_role("button", name="Undo").click()
    expect(page.locator("#weight-note")).to_contain_text("Computed while it was on: #2")
    page.get_by_role("button", name="Make them again without it").click()
    expect(page.locator("#weight-note")).to_contain_text("Made again: #3")
    expect(page.locator("#ledger li")).to_have_count(1)


def test_the_guard_can_be_set_to_refuse(window: Window) -> None:
    page = window.page
    window.tab("Weights")
    page.locator("#weight-guard input").click()
    page.get_by_role("option", name="refuse").click()
    page.locator("#weight-line textarea").fill(EIFFEL)
    page.locator("#weight-apply").click()
    expect(page.locator(".toast-body")).to_contain_text("Refused by the guard")
    expect(page.locator("#weight-line textarea")).to_have_value(EIFFEL)
    expect(page.locator("#ledger li")).to_have_count(0)


def test_often_used_facts_go_into_the_weights(window: Window) -> None:
    page = window.page
    window.add(EIFFEL)
    expect(page.locator("#fact-result")).to_contain_text("Written")
    for asked in range(3):
        window.ask("Where is the Eiffel Tower?")
        expect(page.locator("#chat .bot.message .message:not(.thought)")).to_have_count(asked + 1)
        expect(last_answer(window)).to_have_text("Rome")
    window.tab("Weights")
    page.get_by_role("button", name="Often-used facts").click()
    expect(page.locator("#consolidate-due li")).to_contain_text("served 3 times")
    page.locator("#consolidate-run").click()
    expect(page.locator("#consolidate-verdict")).to_contain_text("1 fact written into the weights as #1")
    expect(page.locator("#consolidate-verdict")).to_contain_text("own probes right 100%")
    expect(page.locator("#ledger")).to_contain_text("memit")


def test_an_adapter_is_imported_and_another_file_is_refused(window: Window, tmp_path: Path) -> None:
    page = window.page
    good, bad = tmp_path / "adapter.safetensors", tmp_path / "config.json"
    good.write_text("x")
    bad.write_text("{}")
    window.tab("Weights")
    page.locator("#import-fold button").first.click()
    page.locator("#weight-import input[type=file]").set_input_files(str(good))
    expect(page.locator("#weight-note")).to_contain_text("Imported as #1")
    expect(page.locator("#ledger")).to_contain_text("imported from adapter.safetensors")
    page.reload()
    window.tab("Weights")
    page.locator("#import-fold button").first.click()
    page.locator("#weight-import input[type=file]").set_input_files(str(bad))
    expect(page.locator(".toast-body").first).to_contain_text("holds neither")


def test_methods_that_the_model_lacks_say_why(window: Window) -> None:
    page = window.page
    window.tab("Compare")
    expect(page.locator("#compare-missing")).to_contain_text("MEND needs a network trained for this model")
    expect(page.locator("#compare-methods")).to_contain_text("MEND (not available)")
    window.tab("Weights")
    page.locator("#weight-method input").click()
    page.get_by_role("option", name="MEND (not available)").click()
    expect(page.locator("#method-about")).to_contain_text("Not available here")


def test_compare_with_the_unedited_model(window: Window) -> None:
    page = window.page
    window.add(EIFFEL)
    expect(page.locator("#fact-result")).to_contain_text("Written")
    page.locator("#both input").check()
    window.ask("Where is the Eiffel Tower?")
    cells = page.locator("#chat td")
    expect(cells.nth(0)).to_have_text("Rome")
    expect(cells.nth(1)).to_have_text("Paris")


def test_weights_apply_switch_undo_redo_export(window: Window) -> None:
    page = window.page
    window.tab("Weights")
    page.locator("#weight-line textarea").fill(EIFFEL)
    page.locator("#weight-apply").click()
    expect(page.locator("#ledger")).to_contain_text("layer 3")
    expect(page.locator("#header")).to_contain_text("1 weight edit on")
    window.ask("Where is the Eiffel Tower?")
    expect(last_answer(window)).to_have_text("Rome")
    expect(page.locator("#chat .thought-group .title").last).to_contain_text("1 weight edit on")
    page.locator("#ledger").get_by_role("button", name="Off").click()
    expect(page.locator("#header")).to_contain_text("0 weight edits on")
    window.ask("Where is the Eiffel Tower again?")
    expect(last_answer(window)).to_have_text("Paris")
    page.locator("#ledger").get_by_role("button", name="Undo").click()
    expect(page.locator("#ledger")).to_contain_text("The weights are as they came")
    page.locator("#undone input").check()
    page.locator("#ledger").get_by_role("button", name="Redo").click()
    expect(page.locator("#ledger .badge")).to_have_text("on")
    page.get_by_role("button", name="Export").click()
    page.locator("#weight-export").click()
    expect(page.locator("#weight-file")).to_contain_text("weights-peft")


def test_compare_shows_figures_chart_probes_and_csv(window: Window) -> None:
    page = window.page
    window.tab("Compare")
    page.locator("#compare-line textarea").fill(EIFFEL)
    page.locator("#compare-run").click()
    expect(page.locator("#compare-table tbody tr")).to_have_count(4)
    expect(page.locator("#compare-table")).to_contain_text("0.75–0.95")
    expect(page.locator("#compare-table")).to_contain_text("n 12")
    expect(page.locator("#compare-plot img")).to_be_visible()
    expect(page.locator("#probes tbody tr")).to_have_count(3)
    page.locator("#probe-missed input").click()
    page.get_by_role("option", name="IKE").click()
    expect(page.locator("#probes")).to_contain_text("No probe fits")
    with page.expect_download() as download:
        page.locator("#compare-csv").click()
    text = Path(download.value.path()).read_text()
    assert next(csv.reader(io.StringIO(text)))[:3] == ["method", "metric", "value"]


def test_a_comparison_can_be_stopped(window: Window, served: Served) -> None:
    served[0].delay = 0.1
    window.tab("Compare")
    window.page.locator("#compare-line textarea").fill(EIFFEL)
    window.page.locator("#compare-run").click()
    expect(window.page.locator("#compare-progress .progress")).to_be_visible()
    window.page.locator("#compare-stop").click()
    expect(window.page.locator("#compare-run")).to_be_visible()
    expect(window.page.locator("#compare-progress .progress")).to_have_count(0)


def test_own_probes_in_the_compare_tab(window: Window) -> None:
    page = window.page
    window.tab("Compare")
    page.locator("#compare-line textarea").fill(EIFFEL)
    page.get_by_role("button", name="Probes").click()
    page.locator("#probes-fill").click()
    lines = page.locator("#probe-lines textarea")
    expect(lines).to_have_value(f"# {EIFFEL}\nthe fact itself | Probe efficacy <b>?</b> | Rome\n"
                                "in other words | Probe generality <b>?</b> | Rome\n"
                                "other subjects | Probe locality_neighbour <b>?</b> | London")  # fmt: skip
    lines.fill("the fact itself | My own question? | Rome\nnonsense | a | b")
    page.locator("#compare-run").click()
    expect(page.locator(".toast-body")).to_contain_text("unknown kind")
    lines.fill("the fact itself | My own question? | Rome")
    page.locator("#compare-run").click()
    expect(page.locator("#probes tbody tr")).to_have_count(1)
    expect(page.locator("#probes")).to_contain_text("My own question?")


def test_the_benchmark_tab_runs_is_seen_from_another_page_and_downloads(window: Window, served: Served) -> None:
    served[0].delay = 0.05
    page = window.page
    window.tab("Benchmark")
    page.locator("#bench-run").click()
    expect(page.locator("#bench-progress .progress")).to_be_visible()
    expect(page.locator("#bench-stop")).to_be_visible()
    other = window.open()
    other.get_by_role("tab", name="Benchmark").click()
    expect(other.locator("#bench-stop")).to_be_visible()
    other.close()
    expect(page.locator("#bench-table tbody tr")).to_have_count(4)
    expect(page.locator("#bench-table")).to_contain_text("10 facts")
    with page.expect_download() as download:
        page.locator("#bench-json").click()
    assert len(json.loads(Path(download.value.path()).read_text())["rows"]) == 4
    served[0].delay = 0.2
    page.locator("#bench-run").click()
    page.locator("#bench-stop").click()
    expect(page.locator("#bench-progress")).to_contain_text("Stopped")


def test_import_reports_bad_rows_and_export_downloads(window: Window, tmp_path: Path) -> None:
    page = window.page
    path = tmp_path / "facts.csv"
    path.write_text(f"subject,relation,object\nEiffel Tower,location,Rome\n<b>,x\n{HOSTILE},location,Oslo\n")
    window.tab("Facts")
    page.get_by_role("button", name="Import and export").click()
    page.locator("#fact-file input[type=file]").set_input_files(str(path))
    expect(page.locator("#import-report")).to_contain_text("2 written, 1 left out")
    expect(page.locator("#import-report")).to_contain_text("needs subject, relation and object")
    expect(page.locator("#fact-table li")).to_have_count(2)
    with page.expect_download() as download:
        page.locator("#export-json").click()
    assert "Eiffel Tower" in Path(download.value.path()).read_text()


def test_two_sessions_do_not_see_each_others_chats(window: Window, chromium: Any, served: Served) -> None:
    window.ask("Where is Big Ben?")
    other = Window(chromium, served[1])
    expect(other.page.locator("#chat .user.message")).to_have_count(0)
    other.page.locator("#earlier input").click()
    expect(other.page.get_by_role("option")).to_have_count(1)
    other.page.keyboard.press("Escape")
    other.ask("Where is the Colosseum?")
    other.close()
    expect(window.page.locator("#chat .user.message")).to_have_count(1)
    second = window.open()  # another tab of the same browser: a chat of its own, the first among the earlier ones
    expect(second.locator("#chat .user.message")).to_have_count(0)
    second.locator("#earlier input").click()
    second.get_by_role("option", name="Where is Big Ben?").click()
    expect(second.locator("#chat .user.message")).to_have_count(1)


def test_reload_new_chat_and_delete(window: Window) -> None:
    page = window.page
    window.ask("Where is Big Ben?")
    page.reload()
    window.trouble.clear()  # what was under way when the page went is aborted, and the page says so
    expect(last_answer(window)).to_have_text("London")
    page.locator("#new-chat").click()
    expect(page.locator("#chat .user.message")).to_have_count(0)
    window.ask("Where is the Colosseum?")
    page.locator("#delete-chat").click()
    expect(page.locator("#chat .user.message")).to_have_count(0)
    page.locator("#earlier input").click()
    expect(page.get_by_role("option")).to_have_count(2)  # the new one and Big Ben


def test_a_restart_keeps_the_chat(chromium: Any, tmp_path: Path) -> None:
    from playwright.sync_api import Error

    from app.ui.layout import build_blocks, serve

    folder, port = tmp_path / "state", free_port()
    settings = load_settings(data=folder, port=port)

    def start() -> tuple[Any, str]:
        service = FakeService(folder, settings=settings)
        blocks = build_blocks(service)
        return blocks, serve(service, blocks, block=False)

    blocks, url = start()
    window = Window(chromium, url)
    window.ask("Where is Big Ben?")
    blocks.close(verbose=False)
    blocks, _ = start()
    try:
        window.page.reload()
    except Error:  # Gradio's page reloads itself where it has noticed that its server was away, perhaps just now
        window.page.goto(url)
    expect(last_answer(window)).to_have_text("London")
    window.close()
    blocks.close(verbose=False)


def test_examples_start_a_chat(window: Window) -> None:
    window.page.get_by_role("button", name="Where is the Eiffel Tower?").click()
    expect(last_answer(window)).to_have_text("Paris")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_shows_everything_without_sideways_scrolling(chromium: Any, served: Served, dark: bool) -> None:
    window = Window(chromium, served[1], width=390, height=844, dark=dark)
    window.add(EIFFEL)
    expect(window.page.locator("#fact-table li")).to_contain_text(EIFFEL)
    window.page.locator("#both input").check()
    window.ask("Where is the Eiffel Tower?")
    for name in ("Evidence", "Facts", "Compare", "Weights"):
        window.tab(name)
        assert window.page.evaluate("document.documentElement.scrollWidth") <= 390, name
    background = window.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(23, 19, 16)") is dark
    assert window.trouble == []
    window.close()


def test_an_overlong_message_cannot_be_sent(window: Window, served: Served) -> None:
    limit = served[0].settings.max_message
    window.page.locator("#ask textarea").fill("x" * (limit + 50))
    assert len(window.page.locator("#ask textarea").input_value()) <= limit
