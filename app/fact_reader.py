"""From words to facts: a sentence, or three parts, understood and checked against what memory says already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.engine import Engine
from app.errors import TooLarge
from app.views import FactView, ParsePreview
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, PalimpsestError
from knowledge.parsing import parse_statement

if TYPE_CHECKING:
    from memory.lexicon import Wording
    from memory.schema import StoredFact

EXAMPLE = "The Eiffel Tower is located in Rome."


class FactReader:
    """Reads sentences with the world's relations; loads no language model."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def relations(self) -> list[tuple[str, str]]:
        pairs = [(name, relation.label) for name, relation in self._engine.world.relations.items()]
        return sorted(pairs, key=lambda pair: pair[1].casefold())

    def parts(self, text: str) -> dict[str, Any]:
        """A sentence as the arguments of ``FactStore.add``, with the parser's ``confidence``.

        Raises:
            PalimpsestError: the sentence is empty, too long, or says no fact.
        """
        limit = self._engine.settings.max_fact
        if not text.strip():
            raise InvalidInput(f"The sentence is empty. Try: {EXAMPLE}")
        if len(text) > limit:
            raise TooLarge(f"The sentence has {len(text):,} characters; at most {limit:,} make a fact. Shorten it.")
        parsed = parse_statement(text, self._engine.world.relations, self._engine.world_names)
        return {
            "subject": parsed.subject,
            "relation": parsed.relation,
            "object": parsed.object,
            "prompt": parsed.prompt,  # as the user worded it, article and all
            "question": parsed.question,
            "confidence": parsed.confidence,
        }

    def word(self, parts: dict[str, Any]) -> Wording:
        """The complete wording of a fact's parts; keys that the lexicon does not know are left out.

        Raises:
            InvalidInput: a part is missing or too long.
        """
        more = {name: parts.get(name) for name in ("prompt", "question", "statement", "cardinality")}
        return self._engine.store.lexicon.word(parts["subject"], parts["relation"], parts["object"], **more)

    def edit_of(self, text: str) -> Edit:
        """A sentence as an edit request."""
        word = self.word(self.parts(text))
        aliases = tuple(self._engine.store.lexicon.aliases_of(word.object))
        return Edit(word.prompt, word.subject, word.object, None, word.relation, word.question, aliases)

    def preview(self, text: str) -> ParsePreview:
        """How a sentence is understood; one that is not says why in ``problem``."""
        try:
            parts = self.parts(text)
        except PalimpsestError as error:
            return ParsePreview(text, problem=str(error))
        return self._preview(text, parts)

    def preview_triple(self, subject: str, relation: str, object: str, *, text: str = "") -> ParsePreview:
        return self._preview(text, {"subject": subject, "relation": relation or None, "object": object})

    def _preview(self, text: str, parts: dict[str, Any]) -> ParsePreview:
        store, space = self._engine.store, self._engine.settings.namespace
        try:
            word = self.word(parts)
        except PalimpsestError as error:
            return ParsePreview(text, problem=str(error))
        known = self._engine.world.relations.get(word.relation or "")
        told = [fact for fact in store.about([word.subject_key], [space]) if fact.relation_key == word.relation_key]
        twin = next((fact for fact in told if fact.object_key == word.object_key), None)
        rival = next((fact for fact in told if fact.cardinality == "functional"), None)
        conflict = rival if twin is None and word.cardinality == "functional" else None
        return ParsePreview(
            text=text,
            subject=word.subject,
            relation=word.relation or "",
            object=word.object,
            label=known.label if known else (word.relation or word.prompt.replace("{}", "").strip()),
            statement=word.statement,
            question=word.question or word.prompt.replace("{}", word.subject),
            confidence=float(parts.get("confidence", 1.0)),
            conflict=fact_view(conflict) if conflict else None,
            duplicate=fact_view(twin) if twin else None,
        )


def fact_view(fact: StoredFact, in_weights: int | None = None) -> FactView:
    """A stored fact as the outside sees it; ``in_weights`` is the number of the weight edit that holds it too."""
    data = fact.to_json() | {"relation": fact.relation or "", "in_weights": in_weights}
    return FactView(**{name: data[name] for name in FactView.__dataclass_fields__})
