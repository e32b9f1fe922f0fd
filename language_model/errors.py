"""What can go wrong between the user and a language model. Messages are shown word for word."""

from __future__ import annotations

from collections.abc import Iterable

from knowledge.errors import InvalidInput, PalimpsestError


class ModelNotFound(PalimpsestError, FileNotFoundError):
    """No model under the name or path that was given."""

    def __str__(self) -> str:  # OSError would add errno and file name
        return str(self.args[0])


class ModelUnusable(PalimpsestError):
    """A model is there, but it cannot be loaded or is not a causal language model."""


class UnsupportedArchitecture(PalimpsestError):
    """The model's family is not in the table of architectures, so its weights cannot be edited."""

    def __init__(self, model_type: str, known: Iterable[str]) -> None:
        self.model_type = model_type
        super().__init__(
            f"Weight edits do not know the model family {model_type!r}. Known families: {', '.join(sorted(known))}. "
            "Chat and edit memory work with this model as it is. To add the family, add one row to ARCHITECTURES in "
            "language_model/architectures.py with the names of its modules (print them with model.named_modules())."
        )


class PromptTooLong(InvalidInput):
    """A prompt leaves no room for an answer in the model's context."""

    def __init__(self, tokens: int, context: int) -> None:
        self.tokens, self.context = tokens, context
        super().__init__(
            f"The prompt has {tokens:,} tokens, and the model reads at most {context:,} including its answer. "
            "Shorten the text, start a new chat, or use fewer facts or demonstrations."
        )


class OverlayMismatch(PalimpsestError):
    """An overlay names a module that the model does not have, or its shapes differ from the model's."""


class OverlayUnreadable(PalimpsestError):
    """A file is not an overlay, is damaged, or needs an adapter class that is not registered."""
