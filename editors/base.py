"""What an editor is: settings, refusals, and one method that turns requested edits into an :class:`Overlay`.

    editor = get_editor("r-rome")
    overlay = editor.edit(lm, [Edit("The Eiffel Tower is located in", ...)])
    with lm.overlaid(overlay): ...

An editor never writes to the model: whatever happens inside :meth:`Editor.edit`, the weights stay bit for bit.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import editors.added  # noqa: F401  registers what overlay files may name
from editors.footprint import Footprint, too_large
from editors.presets import DerivedLayer, canonical_name, derived_layer
from knowledge.edit import Edit
from knowledge.errors import PalimpsestError, UnknownName
from knowledge.text import answer_matches, normalise_key
from language_model.model import LanguageModel
from language_model.overlay import Overlay

if TYPE_CHECKING:
    from editors.statistics import MomentStore

log = logging.getLogger(__name__)

Progress = Callable[[float, str], None]
"""Called with the share done (0 to 1) and what is being done."""


class EditRefused(PalimpsestError):
    """The edit cannot be made as requested; nothing was computed and nothing changed."""


@dataclass(frozen=True)
class Hparams:
    """Settings that every editor has."""

    seed: int = 0  # of sampled prefixes and of initial values; same seed, same overlay


H = TypeVar("H", bound=Hparams)


@dataclass(frozen=True)
class Job:
    """What :meth:`Editor.compute` is given: the arguments of :meth:`Editor.edit`, none of them missing."""

    lm: LanguageModel
    edits: list[Edit]
    base: Overlay
    earlier: list[Edit]
    progress: Progress
    kept: dict[str, Any] = field(default_factory=dict)  # what one stage of a method leaves for its next

    def part(self, start: float, end: float) -> Progress:
        """Progress of one stage of the work, as a share of the whole."""
        return lambda share, what: self.progress(start + (end - start) * share, what)


class Editor(ABC, Generic[H]):
    """One editing method.

    Args:
        moments: where second moments come from and are cached; only some methods ask.
        refuse_known: refuse an edit whose target the model already answers.
        overrides: settings by name, which win over the preset of the model and the defaults.

    Subclasses set the class attributes and implement :meth:`compute`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str]
    kind: ClassVar[str] = "delta"  # "delta": the overlay is a weight change; "adapter": it is added parameters
    Settings: ClassVar[type[Hparams]] = Hparams
    LAYER_RULE: ClassVar[str] = ""  # how a layer is derived, in words; none: as causal tracing says (derived_layer)
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}
    SCALED: ClassVar[frozenset[str]] = frozenset()  # presets that no paper gives: ours, from those of other sizes

    def __init__(self, *, moments: MomentStore | None = None, refuse_known: bool = True, **overrides: Any) -> None:
        names = [item.name for item in fields(self.Settings)]
        for name in overrides:
            if name not in names:
                raise UnknownName(f"setting of {self.title}", name, names)
        self.overrides = overrides
        self.refuse_known = refuse_known
        self._moments = moments

    @property
    def moments(self) -> MomentStore:
        if self._moments is None:
            from editors.statistics import MomentStore

            self._moments = MomentStore()
        return self._moments

    @property
    def hparams(self) -> Hparams:
        """The settings before any model is known: defaults and overrides."""
        return self.Settings(**self.overrides)

    def settings(self, lm: LanguageModel) -> H:
        """The settings for one model: defaults, then the model's preset, then the overrides."""
        preset = self.PRESETS.get(canonical_name(lm) or "", {})
        return replace(self.Settings(), **{**preset, **self.overrides})  # type: ignore[return-value]

    def derived_layer(self, lm: LanguageModel) -> DerivedLayer:
        """The layer for a model without a preset, and how it was found."""
        return derived_layer(lm, self.moments.cache_dir)

    def layer_source(self, lm: LanguageModel) -> str:
        """Which layers this model is edited at and why these, for the user; empty where a method has no choice."""
        settings: Any = self.settings(lm)
        single = getattr(settings, "layer", None)
        chosen = getattr(settings, "layers", None) or (() if single is None else (single,))
        if not chosen:
            return ""
        where = f"Layer {chosen[0]}" if len(chosen) == 1 else f"Layers {chosen[0]} to {chosen[-1]}"
        named = {"layer", "layers"}
        if named & set(self.overrides):
            return f"{where}, as set."
        if named & set(self.PRESETS.get(canonical_name(lm) or "", {})):
            name = canonical_name(lm)
            if name in self.SCALED:
                return f"{where}: ours for {name}, at the depth of the published settings for other models."
            return f"{where}: the published settings for {name}."
        if self.LAYER_RULE:
            return f"{where}: derived by rule, {self.LAYER_RULE}."
        return f"{where}: {self.derived_layer(lm).why}."

    def edit(
        self,
        lm: LanguageModel,
        edits: Sequence[Edit],
        *,
        base: Overlay | None = None,
        earlier: Sequence[Edit] = (),
        progress: Progress | None = None,
    ) -> Overlay:
        """The change that makes ``lm`` answer as the edits request.

        Args:
            edits: one or more; they are made together.
            base: edits that are already active; they belong to the model while this one is computed, and are not
                part of the result.
            earlier: what those edits say; methods that protect earlier facts (AlphaEdit) read their keys.

        Raises:
            EditRefused: an edit cannot be made; the message says which and why.
        """
        self.check(lm, edits, base=base, earlier=earlier)
        settings: H = self.settings(lm)
        report = progress or (lambda share, what: None)
        source = self.layer_source(lm)
        if source:
            log.info("%s on %s: %s", self.title, lm.name, source)
            report(0.0, source)
        with lm.overlaid(base):
            job = Job(lm, list(edits), base or Overlay.empty(), list(earlier), report)
            overlay = self.compute(job, settings)
        report(1.0, "done")
        return overlay

    @abstractmethod
    def compute(self, job: Job, settings: H) -> Overlay:
        """Does the work of :meth:`edit`; runs with ``job.base`` active."""

    def footprint(
        self, lm: LanguageModel, edits: Sequence[Edit], settings: H, earlier: Sequence[Edit] = ()
    ) -> Footprint:
        """What :meth:`edit` will take in memory beside the loaded model, an estimate; nothing worth counting here."""
        return Footprint()

    def check(
        self, lm: LanguageModel, edits: Sequence[Edit], *, base: Overlay | None = None, earlier: Sequence[Edit] = ()
    ) -> None:
        """Refuses, with reasons, what cannot be edited. Costs one batched scoring pass.

        Raises:
            EditRefused: nothing to do, contradicting targets in one batch, too little memory, or a target that is
                already the answer.
        """
        if not edits:
            raise EditRefused("There is nothing to edit: the list of edits is empty. Give at least one edit.")
        wanted: dict[tuple[str, str], Edit] = {}
        for edit in edits:
            _check_text(edit, self.title)
            key = (edit.prompt, normalise_key(edit.subject))
            other = wanted.setdefault(key, edit)
            if not answer_matches(edit.target_new, other.target_new):
                raise EditRefused(
                    f"Two edits of one batch contradict each other: {other.statement!r} and {edit.statement!r}. "
                    "Keep one of them, or apply them one after the other."
                )
        excess = too_large(self.footprint(lm, edits, self.settings(lm), earlier), lm)
        if excess is not None:
            count = "one edit" if len(edits) == 1 else f"{len(edits):,} edits"
            free = "" if lm.memory_limit is not None else "close other programs, "
            raise EditRefused(
                f"{count.capitalize()} by {self.title} on {lm.name} would take {excess}. Nothing was changed. "
                f"Edit fewer facts at once, {free}take a method that keeps less (MEND and GRACE need no second "
                "moments), or set PALIMPSEST_MEMORY_LIMIT, in GiB, where you know better."
            )
        if self.refuse_known:
            known = already_known(lm, edits, base)
            if known:
                listed = "; ".join(edit.statement for edit in known[:3]) + (" ..." if len(known) > 3 else "")
                raise EditRefused(
                    f"The model already answers so: {listed} Nothing needs to change. "
                    "Leave these edits out, or choose another target."
                )


def _check_text(edit: Edit, title: str) -> None:
    if not edit.subject.strip():
        raise EditRefused(f"{title} needs a subject: the edit {edit.text!r} names none.")
    if "{}" not in edit.prompt:
        raise EditRefused(
            f"{title} writes the fact where the model reads its subject, but {edit.prompt!r} does not mention "
            f"{edit.subject!r}. Put {{}} where the subject stands."
        )
    if not edit.target_new.strip():
        raise EditRefused(f"The edit of {edit.text!r} has no new target. Give the text the model should answer.")


def already_known(lm: LanguageModel, edits: Sequence[Edit], base: Overlay | None = None) -> list[Edit]:
    """The edits whose target the model already answers, in every form in which it would be asked."""
    from editors.rewrites import forms_of

    rows = [(edit, form.prompt) for edit in edits for form in forms_of(lm, edit)]
    scores = lm.score(
        [prompt for _, prompt in rows], [edit.target_new for edit, _ in rows], overlays=[base] * len(rows)
    )
    hits: dict[str, bool] = {edit.id: True for edit in edits}
    for (edit, _), score in zip(rows, scores, strict=True):
        hits[edit.id] &= score.exact
    return [edit for edit in edits if hits[edit.id]]
