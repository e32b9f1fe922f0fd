"""What memory is left, with and without a container's limit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from language_model import room
from language_model.model import LanguageModel

LIMITS = {
    2: ("memory.max", "memory.current", "inactive_file"),
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


@pytest.fixture(params=[1, 2])
def group(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a control group and puts this process into the innermost one, ``/outer/inner``."""
    limit_name, use_name, file_name = LIMITS[request.param]
    own = "0::/outer/inner" if request.param == 2 else "4:cpu,memory:/outer/inner"
    root = tmp_path if request.param == 2 else tmp_path / "memory"
    (tmp_path / "own").write_text(f"9:pids:/other\n{own}\n")
    monkeypatch.setattr(room, "_GROUPS", tmp_path)
    monkeypatch.setattr(room, "_OWN", tmp_path / "own")

    def make(path: str, limit: str, used: int = 700, files: int = 150) -> None:
        folder = root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / limit_name).write_text(f"{limit}\n")
        (folder / use_name).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 500\n{file_name} {files}\n")

    return make


def free() -> int:
    found = room.free_bytes(torch.device("cpu"))
    assert found is not None
    return found


def test_no_more_is_free_than_there_is() -> None:
    assert 0 < free() <= psutil.virtual_memory().total


@pytest.mark.parametrize(("limit", "left"), [("1000", 450), ("600", 50), ("500", 0)])
def test_a_containers_limit_counts(group: Callable[..., None], limit: str, left: int) -> None:
    """Pages of files are given up by the kernel when they are needed, so they count as free."""
    group("outer/inner", limit)
    assert free() == left


def test_a_limit_around_the_own_group_counts(group: Callable[..., None]) -> None:
    group("outer/inner", "2000")
    group("outer", "1000")
    assert free() == 450
    group("", "900")
    assert free() == 350


@pytest.mark.parametrize("limit", ["max", "much", str(2**62)])
def test_a_container_without_a_limit_leaves_the_machines(group: Callable[..., None], limit: str) -> None:
    group("outer/inner", limit)
    assert free() > 1_000_000


def test_another_system_has_no_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "_OWN", tmp_path / "missing")
    assert free() > 1_000_000


def test_a_limit_that_was_set_wins(tiny_lm: LanguageModel) -> None:
    limited = LanguageModel(tiny_lm.model, tiny_lm.tokenizer, memory_limit=5)
    assert limited.room == 5
    assert tiny_lm.room is not None
    assert tiny_lm.room > 5


def test_a_device_that_does_not_say() -> None:
    assert room.free_bytes(torch.device("meta")) is None
