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
