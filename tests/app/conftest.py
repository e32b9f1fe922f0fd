"""Fixtures of the application's tests: a service without a model, a command line over it, and a served page."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.settings import load_settings
from tests.app.fakes import FakeService


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PALIMPSEST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PALIMPSEST_DATA", str(tmp_path / "state"))


@pytest.fixture
def service(tmp_path: Path) -> FakeService:
    return FakeService(tmp_path / "state")


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, service: FakeService) -> Callable[..., Result]:
    """Runs a command over one fake service that keeps its state between calls."""
    from app import cli as module

    monkeypatch.setattr("app.commands.common.make_service", lambda settings: service)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(module.app, list(arguments))

    return run


@pytest.fixture
def cli_json(cli: Callable[..., Result]) -> Callable[..., Any]:
    def run(*arguments: str) -> Any:
        result = cli(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Served = tuple[FakeService, str]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """The page over a fake service, on a free port."""
    from app.ui.layout import build_blocks, serve

    folder = tmp_path / "state"
    fake = FakeService(folder, delay=0.01, settings=load_settings(data=folder, port=free_port()))
    blocks = build_blocks(fake)
    url = serve(fake, blocks, block=False)
    yield fake, url
    blocks.close(verbose=False)


CHROMIUM = os.environ.get("PALIMPSEST_CHROMIUM", "/usr/bin/chromium")
FLAGS = (
    "--no-sandbox --disable-background-networking --disable-component-update --disable-sync --no-first-run "
    "--disable-gpu --disable-quic --disable-dev-shm-usage"
).split()


@pytest.fixture(scope="package")
def chromium() -> Iterator[Any]:
    """A running Chromium. Missing, it skips the tests, but fails them where CI=true."""
    missing = ""
    if not Path(CHROMIUM).exists():
        missing = f"no Chromium at {CHROMIUM}: apt-get install chromium, or set PALIMPSEST_CHROMIUM"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "playwright is not installed: pip install playwright"
    if missing:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Window:
    """One browser session on the served page, with what a test does over and over."""

    def __init__(self, browser: Any, url: str, *, width: int = 1280, height: int = 860, dark: bool = False) -> None:
        self.url = url
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        self.context.set_default_timeout(20_000)
        self.trouble: list[str] = []
        self.hosts: set[str] = set()
        self.page = self.open()

    def open(self) -> Any:
        """Another tab of the same browser session, ready."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.trouble.append(f"page error: {error}"))
        page.on("console", lambda message: self._console(message))
        page.on("dialog", lambda dialog: (self.trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self.hosts.add(request.url.split("/")[2] if "//" in request.url else ""))
        page.goto(self.url)
        page.locator("#ask textarea").wait_for()
        page.locator("#earlier input").wait_for()
        return page

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.trouble.append(f"console: {message.text}")

    def ask(self, question: str, page: Any = None) -> None:
        """Asks and waits until the answer is complete."""
        page = page or self.page
        asked = page.locator("#chat .user.message", has_text=question)
        before = asked.count()
        page.locator("#ask textarea").fill(question)
        page.locator("#ask textarea").press("Enter")
        asked.nth(before).wait_for()
        page.locator("#send").wait_for()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def add(self, sentence: str) -> None:
        self.tab("Facts")
        self.page.locator("#fact-line textarea").fill(sentence)
        self.page.locator("#fact-add").click()

    def close(self) -> None:
        self.context.close()


@pytest.fixture
def window(chromium: Any, served: Served) -> Iterator[Window]:
    """A session that must end without errors in the console and without a request to anybody else."""
    window = Window(chromium, served[1])
    yield window
    trouble, hosts = window.trouble, {host.split(":")[0] for host in window.hosts}
    window.close()
    assert trouble == [] and hosts <= {"127.0.0.1", ""}, (trouble, hosts)
