"""What the parts make of their command line."""

from __future__ import annotations

import argparse
import json
from dataclasses import fields
from typing import Any

from editors.registry import get_editor
from knowledge.errors import InvalidInput
from language_model.model import LanguageModel


def measured(options: argparse.Namespace, lm: LanguageModel, *names: str) -> dict[str, Any]:
    """What a kept row must have in common with this run to be used in it."""
    chosen = {name: getattr(options, name) for name in ("seed", "set", "threads", *names)}
    return {"part": options.run.__name__, "model": lm.fingerprint, **chosen}


def given_settings(method: str, given: list[str]) -> dict[str, Any]:
    """``--set NAME=VALUE`` as settings, for the methods that have one of that name; values as JSON.

    Raises:
        InvalidInput: not of that form.
    """
    known = {item.name for item in fields(get_editor(method).Settings)}
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            parsed = json.loads(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InvalidInput(f"{text!r} is no setting. Write NAME=VALUE with a number or true, such as prefixes=5.")
        if name in known:
            found[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    return found
