"""Settings: every knob of the program, from the environment (``PALIMPSEST_*``) or a flag, described once, here.

>>> Settings(port=8000).port
8000

``python -m app settings`` renders the table; the text of each row is the ``description`` of the field, so the
documentation cannot drift from the code.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from knowledge.errors import PalimpsestError

PREFIX = "PALIMPSEST_"

Mode = Literal["auto", "memory", "weights", "both", "base"]


class SettingsError(PalimpsestError):
    """A setting has a value that cannot be used."""


def _default_data() -> Path:
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "palimpsest"


class Settings(BaseSettings):
    """All settings, validated. Flags of the command line win over the environment, which wins over the defaults."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=None, env_ignore_empty=True, extra="ignore", frozen=True
    )

    data: Path = Field(
        default_factory=_default_data,
        description="Folder of facts, chats, weight edits and caches.",
    )
    database: str | None = Field(
        None,
        description="SQLAlchemy URL of the database; empty means SQLite in the data folder.",
    )
    namespace: str = Field("default", min_length=1, max_length=100, description="Which set of facts is used.")
    model: str = Field(
        "bundled", min_length=1, description="'bundled', or the name or path of a causal language model."
    )
    device: str | None = Field(None, description="cpu, cuda, cuda:1, mps; empty chooses by itself.")
    dtype: str | None = Field(None, description="float32, bfloat16, float16; empty chooses by itself.")
    memory_limit: float | None = Field(
        None, gt=0, description="GiB that a weight edit may take beside the model; empty: what is free."
    )
    threads: int = Field(0, ge=0, le=1024, description="CPU threads for the model; 0 leaves it to torch.")
    encoder: str = Field(
        "sentence-transformers/all-MiniLM-L6-v2",
        min_length=1,
        description="Sentence encoder that finds facts again.",
    )
    index_switch: int = Field(
        200_000, ge=1_000, description="Facts from which the index is compressed: faster, recall near 1 instead of 1."
    )
    threshold: float | None = Field(None, ge=-1, le=1, description="Gate threshold; empty uses the calibrated one.")
    mode: Mode = Field("auto", description="Routing: auto, memory, weights, both or base.")
    strategy: str = Field("auto", description="How memory answers: auto, or the name of a strategy.")
    method: str = Field("r-rome", description="The weight editor offered first.")
    guard: Literal["off", "warn", "refuse"] = Field(
        "warn", description="What happens to a weight edit that is too large or changes other answers."
    )
    guard_sample: int = Field(
        24, ge=0, le=1000, description="Other questions asked before and after a weight edit; 0 asks none."
    )
    compare_methods: str = Field("base,ike,rome,r-rome", description="Methods that Compare starts with.")
    host: str = Field("127.0.0.1", description="Address to serve on; 0.0.0.0 opens it to the network.")
    port: int = Field(7860, ge=1, le=65535, description="Port to serve on.")
    max_message: int = Field(4_000, ge=1, description="Longest chat message, in characters.")
    max_fact: int = Field(400, ge=10, description="Longest sentence of one fact, in characters.")
    max_upload_mb: int = Field(20, ge=1, description="Largest file that may be imported, in MiB.")
    max_new_tokens: int = Field(96, ge=1, le=4096, description="Longest answer, in tokens.")
    history_turns: int = Field(6, ge=0, le=100, description="Earlier turns of the chat that the model is shown.")
    max_compare_facts: int = Field(20, ge=1, description="Most facts in one comparison.")
    page_size: int = Field(12, ge=5, le=200, description="Rows on one page of a table in the browser, 5 to 200.")
    seed: int = Field(0, ge=0, description="Seed of everything that draws at random.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("warning", description="What is logged.")

    @field_validator("data")
    @classmethod
    def _home(cls, folder: Path) -> Path:
        return folder.expanduser()

    @property
    def url(self) -> str:
        """The database URL in effect."""
        return self.database or f"sqlite:///{(self.data / 'palimpsest.sqlite').resolve()}"

    @property
    def weights_folder(self) -> Path:
        """Where the factors of weight edits lie."""
        return self.data / "weights"


def load_settings(**flags: Any) -> Settings:
    """Settings from flags (those that are not None) over the environment over the defaults.

    Raises:
        SettingsError: a value is unusable; the message names the setting, the value and what it accepts.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = str(problem["loc"][0]) if problem["loc"] else "?"
            lines.append(f"{PREFIX}{name.upper()}={problem['input']!r}: {problem['msg']}.")
        raise SettingsError(
            "A setting cannot be used. " + " ".join(lines) + " 'python -m app settings' lists them all."
        ) from error


def describe(settings: Settings) -> list[dict[str, str]]:
    """One row a setting: its environment variable, its value now, its default and what it means."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "~/.local/share/palimpsest" if name == "data" else field.default
        rows.append(
            {
                "setting": name,
                "variable": PREFIX + name.upper(),
                "value": _text(getattr(settings, name)),
                "default": _text(default),
                "meaning": field.description or "",
            }
        )
    return rows


def markdown_table(settings: Settings) -> str:
    """The table of the documentation: variable, default, meaning."""
    lines = ["| variable | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{row['variable']}` | `{row['default']}` | {row['meaning']} |" for row in describe(settings)]
    return "\n".join(lines)


def _text(value: object) -> str:
    return "-" if value is None else str(value)
