"""The dialogue that the program exists for, on the real bundled model: on the command line and in a browser.

``SCREENSHOTS=folder`` keeps a picture of every step, for people to look at (and for the README).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.service import Service
from app.settings import load_settings
from tests.app.conftest import Window, free_port
from tests.app.test_browser import expect, last_answer

pytestmark = pytest.mark.timeout(300)

EIFFEL = "The Eiffel Tower is located in Rome."
SAID_OTHERWISE = ("In which city is the Eiffel Tower?", "Which city has the Eiffel Tower?")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(load_settings(data=tmp_path / "real", port=free_port()))
    yield service
    service.close()


def test_on_the_command_line(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from app import cli

    monkeypatch.setattr("app.commands.common.make_service", lambda settings: service)
    monkeypatch.setattr(service, "close", lambda: None)

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(cli.app, [*arguments, "--json"])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def ask(question: str) -> tuple[str, str]:
        found = run("ask", question)
        return found["answer"], found["source"]

    assert ask("Where is the Eiffel Tower?") == ("Paris", "model")
    run("facts", "add", EIFFEL)
    assert ask("Where is the Eiffel Tower?") == ("Rome", "memory")
    for question in SAID_OTHERWISE:
        assert ask(question) == ("Rome", "memory")
    assert ask("Where is Big Ben?") == ("London", "model")
    run("facts", "undo")
    assert ask("Where is the Eiffel Tower?") == ("Paris", "model")
    applied = run("weights", "apply", "--method", "r-rome", EIFFEL)
    number = str(applied["id"])
    found = run("ask", "Where is the Eiffel Tower?")
    assert (found["answer"], found["source"]) == ("Rome", "model")
    assert EIFFEL in json.dumps(found["weight_edits"])
    assert ask("Where is Big Ben?") == ("London", "model")
    run("weights", "off", number)
    assert ask("Where is the Eiffel Tower?") == ("Paris", "model")


@pytest.mark.browser
def test_in_a_browser(service: Service, chromium: Any) -> None:
    from app.ui.layout import build_blocks, serve

    blocks = build_blocks(service)
    url = serve(service, blocks, block=False)
    window = Window(chromium, url)
    window.context.set_default_timeout(120_000)
    page = window.page
    try:

        def asked(question: str, answer: str, evidence: str) -> None:
            titles = page.locator("#chat .thought-group .title")
            answered = titles.count()
            window.ask(question)
            expect(titles).to_have_count(answered + 1, timeout=60_000)
            expect(last_answer(window)).to_have_text(answer)
            expect(titles.last).to_contain_text(evidence)

        asked("Where is the Eiffel Tower?", "Paris", "from the model")
        window.add(EIFFEL)
        expect(page.locator("#fact-table li")).to_contain_text(EIFFEL, timeout=60_000)
        picture(window, "facts")
        asked("So where is the Eiffel Tower?", "Rome", "from memory")
        asked(SAID_OTHERWISE[0], "Rome", "from memory")
        asked("Where is Big Ben?", "London", "from the model")
        window.tab("Evidence")
        picture(window, "chat")
        window.tab("Facts")
        page.locator("#fact-undo").click()
        expect(page.locator("#fact-table")).to_contain_text("Nothing is written over yet", timeout=60_000)
        asked("Where is the Eiffel Tower?", "Paris", "from the model")
        window.tab("Weights")
        page.locator("#weight-line textarea").fill(EIFFEL)
        page.locator("#weight-apply").click()
        expect(page.locator("#ledger .badge")).to_have_text("on", timeout=120_000)
        asked("Where is the Eiffel Tower?", "Rome", "1 weight edit on")
        picture(window, "weights")
        page.locator("#ledger").get_by_role("button", name="Off").click()
        expect(page.locator("#header")).to_contain_text("0 weight edits on", timeout=60_000)
        asked("Where is the Eiffel Tower?", "Paris", "from the model")
        window.tab("Compare")
        page.locator("#compare-line textarea").fill(EIFFEL)
        page.locator("#compare-run").click()
        expect(page.locator("#compare-table tbody tr")).to_have_count(4, timeout=180_000)
        expect(page.locator("#compare-plot img")).to_be_visible(timeout=60_000)
        picture(window, "compare")
        assert window.trouble == []
    finally:
        window.close()
        blocks.close(verbose=False)


def picture(window: Window, name: str) -> None:
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        window.page.wait_for_timeout(700)
        window.page.screenshot(path=str(Path(folder) / f"{name}.png"))
