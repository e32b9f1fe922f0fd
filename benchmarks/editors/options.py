"""What the parts make of their command line."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from editors.registry import get_editor, parsed_settings
from language_model.model import LanguageModel


def measured(options: argparse.Namespace, lm: LanguageModel, *names: str) -> dict[str, Any]:
    """What a kept row must have in common with this run to be used in it."""
    chosen = {name: getattr(options, name) for name in ("seed", "set", "threads", *names)}
    return {"part": options.run.__name__, "model": lm.fingerprint, **chosen}


def given_settings(method: str, given: list[str]) -> dict[str, Any]:
    """``--set NAME=VALUE`` as settings, for the methods that have one of that name.

    Raises:
        InvalidInput: not of that form.
    """
    known = {item.name for item in fields(get_editor(method).Settings)}
    return {name: value for name, value in parsed_settings(given).items() if name in known}
