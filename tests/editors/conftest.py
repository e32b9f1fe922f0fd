"""Models that editors are tested on, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from editors.statistics import MomentStore
from knowledge.edit import Edit
from language_model.model import LanguageModel
from tests.editors.helpers import capital_edit, corpus, train_tiny


@pytest.fixture(scope="session")
def trained(pytestconfig: pytest.Config) -> LanguageModel:
    """GPT-2 of 4 layers x 64 that knows 24 facts in completions and chats."""
    return train_tiny(Path(pytestconfig.cache.mkdir("tiny-trained")))


@pytest.fixture(scope="session")
def moments(tmp_path_factory: pytest.TempPathFactory) -> MomentStore:
    return MomentStore(corpus=corpus(), cache_dir=tmp_path_factory.mktemp("moments"))


@pytest.fixture
def edit() -> Edit:
    return capital_edit("France", "Rome")
