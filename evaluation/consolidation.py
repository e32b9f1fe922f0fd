"""Consolidation: facts that memory serves often are written into the weights, and stay there only if they prove good.

    found = consolidate(ledger, get_editor("memit", moments=moments), edits, load_world())
    found.kept, found.entry, found.reasons

Memory answers a question about a stored fact exactly, but every such question costs a search and a longer prompt. A
fact that is asked for again and again is therefore also written into the weights, many in one batch. The batch is then
asked its own probes, and a sample of other questions; if too few of the first come right, or too many of the second
change, the batch is undone. The facts stay in memory either way: nothing is lost by trying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from editors.base import Editor, already_known
from editors.guard import GuardRefused, Locality, LocalitySample
from editors.ledger import WeightLedger
from evaluation.compare import completion, prompt_of
from evaluation.methods import Treatment
from evaluation.metrics import generation_right
from knowledge.edit import Edit
from knowledge.errors import InvalidInput
from knowledge.probes import Amounts, Probe, probes_for
from knowledge.text import normalise_key
from knowledge.world import World
from language_model.model import LanguageModel
from language_model.overlay import Overlay

Progress = Callable[[float, str], None]
_PROBES = Amounts(generality=4, neighbour=0, relation=0, unrelated=0, alias=0, onehop=0, inverse=0)


@dataclass(frozen=True)
class Limits:
    """When a batch may stay.

    Attributes:
        efficacy: share of the efficacy probes that must come right.
        generality: share of the other wordings that must, of those 4 a fact that are asked.
        drop: largest loss of locality by the batch.
        sample: questions in the locality sample; one answer of 40 is 2.5 %.
    """

    efficacy: float = 0.9
    generality: float = 0.5
    drop: float = 0.1
    sample: int = 40


@dataclass(frozen=True)
class Consolidation:
    """What became of a batch.

    Attributes:
        kept: it is in the weights.
        entry: its number in the ledger, also where it was undone; None where nothing was written.
        written: the facts of the batch; known: those that the weights said already and that were left out;
        clashing: those left out because another fact of the batch has the same subject and wording.
        efficacy, generality: shares of right answers with the batch; None where nothing was written.
        failed: the facts whose own wording does not come right.
        reasons: why it was undone.
    """

    kept: bool
    entry: int | None
    written: tuple[Edit, ...]
    known: tuple[Edit, ...] = ()
    clashing: tuple[Edit, ...] = ()
    efficacy: float | None = None
    generality: float | None = None
    locality: Locality | None = None
    failed: tuple[Edit, ...] = ()
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "kept": self.kept,
            "entry": self.entry,
            **{name: [e.statement for e in getattr(self, name)] for name in ("written", "known", "clashing", "failed")},
            "efficacy": self.efficacy,
            "generality": self.generality,
            "locality": None if self.locality is None else vars(self.locality),
            "reasons": list(self.reasons),
        }


def consolidate(
    ledger: WeightLedger,
    editor: Editor[Any],
    edits: Sequence[Edit],
    world: World,
    *,
    limits: Limits | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Consolidation:
    """Writes ``edits`` as one batch on top of the active entries, and keeps it if it proves good.

    Raises:
        InvalidInput: no edits.
        EditRefused: the editor cannot make them.
    """
    if not edits:
        raise InvalidInput("There is no fact to consolidate: none was served often enough. Name facts, or ask more.")
    limits, tell = limits or Limits(), progress or (lambda share, what: None)
    lm, before = ledger.lm, ledger.overlay()
    apart, clashing = _apart(edits)
    known = already_known(lm, apart, before or None)
    rest = [edit for edit in apart if edit not in known]
    if not rest:
        return Consolidation(False, None, (), tuple(known), clashing, reasons=("The weights say all of it already.",))
    try:
        entry = ledger.apply(editor, rest, progress=lambda share, what: tell(0.7 * share, what))
    except GuardRefused as error:
        return Consolidation(False, None, tuple(rest), tuple(known), clashing, reasons=(str(error),))
    try:
        tell(0.7, "asking its probes")
        right = _answers(lm, rest, world, ledger.overlay(), seed)
        tell(0.85, "asking other questions")
        avoid = [*rest, *(edit for item in ledger.entries() for edit in item.edits)]
        sample = LocalitySample(limits.sample, seed, world)
        locality = sample.measure(lm, before, ledger.overlay_of(entry.id), avoid, near=rest)
    except BaseException:  # not measured is not proven
        ledger.undo(entry.id)
        raise
    own = [good for kind, _, good in right if kind == "efficacy"]
    other = [good for kind, _, good in right if kind == "generality"]
    efficacy = sum(own) / max(1, len(own))
    generality = sum(other) / len(other) if other else None
    failed = {number for kind, number, good in right if kind == "efficacy" and not good}
    reasons = _reasons(limits, efficacy, generality, locality)
    if reasons:
        ledger.undo(entry.id)
    tell(1.0, "done")
    return Consolidation(
        not reasons,
        entry.id,
        tuple(rest),
        tuple(known),
        clashing,
        efficacy,
        generality,
        locality,
        tuple(rest[number] for number in sorted(failed)),
        reasons,
    )


def _apart(edits: Sequence[Edit]) -> tuple[list[Edit], tuple[Edit, ...]]:
    """The first edit of each subject and wording, and the others: a batch cannot say two things at once."""
    kept: dict[tuple[str, str], Edit] = {}
    clashing = []
    for edit in edits:
        if kept.setdefault((edit.prompt, normalise_key(edit.subject)), edit) is not edit:
            clashing.append(edit)
    return list(kept.values()), tuple(clashing)


def _answers(
    lm: LanguageModel, edits: Sequence[Edit], world: World, overlay: Overlay, seed: int
) -> list[tuple[str, int, bool]]:
    """(kind, number of the edit, right) of every efficacy and generality probe."""
    asked: list[tuple[int, Probe]] = [
        (number, probe)
        for number, edit in enumerate(edits)
        for probe in probes_for(edit, world, seed=seed, amounts=_PROBES)
        if probe.metric in ("efficacy", "generality") and probe.expected
    ]
    prompts = [prompt_of(lm, Treatment(), probe) for _, probe in asked]
    said = lm.generate(prompts, overlays=[overlay] * len(prompts), max_new_tokens=24)
    found = []
    for (number, probe), prompt, text in zip(asked, prompts, said, strict=True):
        names = (probe.expected or "", *probe.aliases)
        answer = completion(text, names) if isinstance(prompt, str) else text
        found.append((probe.metric, number, generation_right(answer, names[0], probe.aliases)))
    return found


def _reasons(limits: Limits, efficacy: float, generality: float | None, locality: Locality | None) -> tuple[str, ...]:
    found = []
    if efficacy < limits.efficacy:
        found.append(f"{efficacy:.0%} of its own probes come right (at least {limits.efficacy:.0%}).")
    if generality is not None and generality < limits.generality:
        found.append(f"{generality:.0%} of other wordings come right (at least {limits.generality:.0%}).")
    if locality is None and limits.sample:  # not measured is not proven
        found.append("No other question was left to ask, so what the batch does beyond its facts is not known.")
    elif locality is not None and locality.before - locality.after > limits.drop:
        lost = locality.before - locality.after
        found.append(f"{lost:.0%} of {locality.n} other answers changed (at most {limits.drop:.0%}).")
    return tuple(found)
