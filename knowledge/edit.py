"""The two central records: a :class:`Fact` of the world and an :class:`Edit` that is requested of a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

from knowledge.errors import InvalidInput
from knowledge.text import squeeze


@dataclass(frozen=True, slots=True)
class Fact:
    """A triple. ``relation`` is the id of a relation of the world."""

    subject: str
    relation: str
    object: str


@dataclass(frozen=True, slots=True)
class Edit:
    """A requested rewrite: the model shall complete ``prompt.format(subject)`` with ``target_new``.

    >>> Edit("The capital of {} is", "France", "Lyon").statement
    'The capital of France is Lyon.'

    Raises:
        InvalidInput: the prompt does not have exactly one ``{}``, or subject or target is empty.
    """

    prompt: str
    subject: str
    target_new: str
    target_true: str | None = None  # what the model said before; filled in when unknown
    relation: str | None = None
    question: str | None = None  # the same request as a question, for the chat form
    aliases: tuple[str, ...] = ()  # other names of the new object that count as right
    id: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        if self.prompt.count("{}") != 1:
            raise InvalidInput(
                f"The prompt {self.prompt!r} must contain the placeholder {{}} exactly once, where the subject goes, "
                'for example "The capital of {} is".'
            )
        for name in ("subject", "target_new"):
            value = squeeze(getattr(self, name))
            if not value:
                raise InvalidInput(f"The {name.replace('_', ' ')} of an edit is empty; give its text.")
            object.__setattr__(self, name, value)

    @property
    def text(self) -> str:
        """The prompt with the subject filled in, ready to be completed."""
        return self.prompt.replace("{}", self.subject)

    @property
    def statement(self) -> str:
        """The edited fact as one sentence."""
        return f"{self.text} {self.target_new}".rstrip(".") + "."

    def with_target_true(self, target_true: str) -> Edit:
        return replace(self, target_true=target_true)

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {"aliases": list(self.aliases)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Edit:
        known = {name: data[name] for name in cls.__slots__ if name in data}
        return cls(**{**known, "aliases": tuple(known.get("aliases") or ())})
