"""What memory is left, with and without a container's limit."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from language_model import room
from language_model.model import LanguageModel


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(room, "_CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    return tmp_path


def test_no_more_is_free_than_there_is() -> None:
    free = room.free_bytes(torch.device("cpu"))
    assert free is not None
    assert 0 < free <= psutil.virtual_memory().total


@pytest.mark.parametrize(("limit", "left"), [("1000", 450), ("600", 50), ("500", 0)])
def test_a_containers_limit_counts(container: Path, limit: str, left: int) -> None:
    """File pages that are not in use are given up by the kernel, so they count as free."""
    (container / "memory.max").write_text(f"{limit}\n")
    assert room.free_bytes(torch.device("cpu")) == left


@pytest.mark.parametrize("limit", ["max", "much"])
def test_a_container_without_a_limit_leaves_the_machines(container: Path, limit: str) -> None:
    (container / "memory.max").write_text(f"{limit}\n")
    free = room.free_bytes(torch.device("cpu"))
    assert free is not None
    assert free > 1_000_000


def test_a_limit_that_was_set_wins(tiny_lm: LanguageModel) -> None:
    limited = LanguageModel(tiny_lm.model, tiny_lm.tokenizer, memory_limit=5)
    assert limited.room == 5
    assert tiny_lm.room is not None
    assert tiny_lm.room > 5


def test_a_device_that_does_not_say() -> None:
    assert room.free_bytes(torch.device("meta")) is None
