"""A remote chat model as the answering model: any LangChain ``BaseChatModel``.

>>> lm = RemoteModel(ChatOpenAI(base_url="http://localhost:8000/v1", model="qwen3", api_key="none"))
>>> get_strategy("ike", lm, gate).answer("Where is the Eiffel Tower?")

Only text goes back and forth, so edit memory works with it and weight edits do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from knowledge.errors import PalimpsestError
from memory.models import Prompt

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage

_CHARACTERS_A_TOKEN = 3.0  # on the safe side for English text; the remote tokenizer is not known


class RemoteModelError(PalimpsestError):
    """The remote model did not answer, or was asked for what only a local model can do."""


class RemoteModel:
    """Makes a chat model of LangChain's fit :class:`memory.models.ChatModel`.

    Args:
        chat: the model; its own temperature counts (set it to 0 for answers that can be repeated).
        context: tokens that fit into a prompt with its answer.
    """

    has_chat = True

    def __init__(self, chat: BaseChatModel, *, context: int = 8192, name: str | None = None) -> None:
        self.chat = chat
        self.context = context
        self.name = name or str(getattr(chat, "model_name", None) or getattr(chat, "model", None) or chat._llm_type)

    def count_tokens(self, prompt: Prompt) -> int:
        """An estimate from the number of characters."""
        texts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
        return sum(int(len(text) / _CHARACTERS_A_TOKEN) + 4 for text in texts)

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_new_tokens: int = 48,
        overlays: Sequence[Any] | None = None,
        stop: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> list[str]:
        """Whole answers, one request each.

        Raises:
            RemoteModelError: no answer, or a weight edit was asked for.
        """
        given = overlays or [None] * len(prompts)
        return [
            "".join(
                self.stream(prompt, overlay=overlay, max_new_tokens=max_new_tokens, stop=stop, cancel=cancel)
            ).strip()
            for prompt, overlay in zip(prompts, given, strict=True)
        ]

    def stream(
        self,
        prompt: Prompt,
        *,
        overlay: Any = None,
        max_new_tokens: int = 256,
        stop: Sequence[str] = (),
        cancel: Event | None = None,
    ) -> Iterator[str]:
        """The answer as it comes; closing the iterator or setting ``cancel`` ends the request."""
        if overlay is not None:
            raise RemoteModelError(
                f"{self.name} is a remote model: its weights cannot be edited from here. Use the edit memory (mode "
                "'memory'), or a local model for weight edits."
            )
        if cancel is not None and cancel.is_set():
            return
        try:
            pieces = self.chat.stream(_messages(prompt), stop=list(stop) or None, max_tokens=max_new_tokens)
            for piece in pieces:
                if cancel is not None and cancel.is_set():
                    return
                text = _text(piece.content)
                if text:
                    yield text
        except (GeneratorExit, PalimpsestError):
            raise
        except Exception as error:  # whatever the client library raises: connection, credentials, limits
            raise RemoteModelError(
                f"{self.name} did not answer: {type(error).__name__}: {error}. "
                f"Check the address, the key and the model's "
                "name, or use the bundled model."
            ) from error


def _messages(prompt: Prompt) -> list[BaseMessage]:
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

    if isinstance(prompt, str):
        return [HumanMessage(prompt)]
    kinds: dict[str, type[BaseMessage]] = {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}
    return [kinds[message["role"]](content=message["content"]) for message in prompt]


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in content)
