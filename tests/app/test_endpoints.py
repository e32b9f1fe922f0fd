"""The public endpoints through ``gradio_client``, and what the server lets nobody have."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from gradio_client import Client

from tests.app.conftest import Served

EIFFEL = "The Eiffel Tower is located in Rome."


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    client = Client(served[1], verbose=False, analytics_enabled=False)
    yield client
    client.close()


def test_ask_add_undo_over_the_api(client: Any) -> None:
    assert client.predict("Where is the Eiffel Tower?", api_name="/ask")["answer"] == "Paris"
    assert client.predict(EIFFEL, api_name="/facts_add")["fact"]["source"] == "api"
    found = client.predict("Where is the Eiffel Tower?", "auto", "auto", api_name="/ask")
    assert (found["answer"], found["source"]) == ("Rome", "memory")
    assert client.predict("Where is the Eiffel Tower?", "base", "auto", api_name="/ask")["answer"] == "Paris"
    assert client.predict("Where is the Eiffel Tower?", api_name="/route")["in_scope"] is True
    assert client.predict("", 1, api_name="/facts_list")["total"] == 1
    client.predict(api_name="/facts_undo")
    assert client.predict(api_name="/status")["facts"] == 0


def test_errors_are_told_and_limits_hold(client: Any, served: Served) -> None:
    with pytest.raises(Exception, match="empty"):
        client.predict(" ", api_name="/ask")
    with pytest.raises(Exception, match="'sideways'"):  # as it is: nothing is escaped for a program
        client.predict("Hello?", "sideways", "auto", api_name="/ask")
    with pytest.raises(Exception, match=r"at most 4,000"):
        client.predict("x" * (served[0].settings.max_message + 1), api_name="/ask")


def test_only_the_named_endpoints_are_public(served: Served) -> None:
    with urllib.request.urlopen(f"{served[1]}gradio_api/info") as reply:
        named = json.load(reply)["named_endpoints"]
    assert set(named) == {"/ask", "/route", "/facts_add", "/facts_list", "/facts_undo", "/status"}


def test_the_state_folder_is_not_served(served: Served) -> None:
    service, url = served
    service.facts.add(EIFFEL)
    for path in (service.settings.data / "chats.sqlite", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}gradio_api/file={path}")
        assert refused.value.code in (403, 404)


def test_the_page_asks_nobody_else_and_keeps_no_runs(served: Served) -> None:
    with urllib.request.urlopen(f"{served[1]}config") as reply:
        config = json.load(reply)
    assert config["run_history"] is False and config["analytics_enabled"] is False
