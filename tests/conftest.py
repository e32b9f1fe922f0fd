"""What all tests share: tiny random models, made once a session. They are never written to, so sharing is safe."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: tests never reach for the network
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # processes beside each other share the cores
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, share)))

import pytest
from hypothesis import settings

from language_model.model import LanguageModel
from language_model.tiny import tiny_model

settings.register_profile("palimpsest", deadline=None, derandomize=True)  # a busy machine is slow, not wrong
settings.load_profile("palimpsest")


@pytest.fixture(scope="session")
def tiny() -> Callable[..., LanguageModel]:
    """``tiny("gptj")``, ``tiny("gpt2", chat=True)``: the same object for the same arguments."""
    made: dict[tuple[str, bool], LanguageModel] = {}

    def get(family: str = "gpt2", *, chat: bool = False) -> LanguageModel:
        if (family, chat) not in made:
            made[family, chat] = tiny_model(family, chat=chat, seed=3)
        return made[family, chat]

    return get


@pytest.fixture(scope="session")
def tiny_lm(tiny: Callable[..., LanguageModel]) -> LanguageModel:
    """A tiny GPT-2 without a chat template."""
    return tiny("gpt2")


@pytest.fixture(scope="session")
def tiny_chat_lm(tiny: Callable[..., LanguageModel]) -> LanguageModel:
    """A tiny GPT-2 with a chat template."""
    return tiny("gpt2", chat=True)
