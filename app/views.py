"""What the service hands to the command line and to the user interface: plain records that turn into JSON.

Neither side sees a database row, a tensor or an editor, so both run on a fake service, and one shape is documented
once. ``as_json`` gives the dictionary that ``--json`` prints.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, NotRequired, TypedDict

ModelState = Literal["cold", "loading", "ready", "failed"]


class HitJson(TypedDict):
    fact_id: int
    text: str
    score: float


class GateJson(TypedDict):
    in_scope: bool
    score: float
    threshold: float


class RouteJson(TypedDict):
    """The way that the router chose, and why."""

    strategy: str  # "model" for the plain model
    reason: str


class ChosenJson(TypedDict):
    """What was asked for beside the question; kept with an answer of the chat."""

    mode: str
    strategy: str  # "auto" left it to the router


class AnswerJson(TypedDict):
    """The documented shape of ``ask --json``, and in a chat what was chosen."""

    answer: str
    source: Literal["memory", "model"]
    strategy: str
    hits: list[HitJson]
    gate: GateJson
    steps: list[dict[str, Any]]
    weight_edits: list[dict[str, Any]]
    seconds: float
    route: NotRequired[RouteJson]  # not in answers of older chats
    chosen: NotRequired[ChosenJson]


@dataclass(frozen=True)
class Status:
    """The header line: what answers, and what has been written over."""

    model: str
    state: ModelState
    facts: int
    weight_edits: int
    detail: str = ""  # what is being loaded, or why it failed


@dataclass(frozen=True)
class FactView:
    """One stored fact, current or past. Times are ISO 8601 in UTC."""

    id: int
    statement: str
    subject: str
    relation: str
    object: str
    status: str
    source: str = "user"
    actor: str = "user"
    reason: str | None = None
    question: str | None = None
    target_true: str | None = None
    cardinality: str = ""
    valid_from: str | None = None
    valid_to: str | None = None
    recorded_at: str | None = None
    retired_at: str | None = None
    supersedes_id: int | None = None
    namespace: str = "default"
    in_weights: int | None = None  # the weight edit that holds it too

    @property
    def current(self) -> bool:
        return self.status in ("active", "current")


@dataclass(frozen=True)
class EventView:
    """One line of history."""

    op: str
    text: str
    at: str
    actor: str = ""
    fact_id: int | None = None
    seq: int | None = None


@dataclass(frozen=True)
class ParsePreview:
    """How a sentence is understood before it is stored."""

    text: str
    subject: str = ""
    relation: str = ""
    object: str = ""
    label: str = ""  # the relation as a person reads it
    statement: str = ""
    question: str = ""
    confidence: float = 0.0
    conflict: FactView | None = None  # the current fact that adding this one would replace
    duplicate: FactView | None = None  # the very same fact, already stored
    problem: str = ""  # why it cannot be stored as it stands

    @property
    def ok(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class AddOutcome:
    fact: FactView
    superseded: FactView | None = None
    duplicate: bool = False


@dataclass(frozen=True)
class FactPage:
    """One page of facts; ``page`` counts from 1."""

    rows: tuple[FactView, ...]
    total: int
    page: int
    pages: int


@dataclass(frozen=True)
class ImportRow:
    line: int
    status: Literal["added", "replaced", "skipped", "failed"]
    text: str
    why: str = ""


@dataclass(frozen=True)
class ImportReport:
    added: int
    skipped: int
    rows: tuple[ImportRow, ...]


@dataclass(frozen=True)
class MethodView:
    """A weight editor, or a row of a comparison."""

    name: str
    title: str
    paper: str = ""
    summary: str = ""
    batch: str = ""  # of a weight editor: what becomes of several facts in one call
    sequence: str = ""  # and of calls one after another


@dataclass(frozen=True)
class EntryView:
    """One entry of the ledger of weight edits."""

    id: int
    method: str
    facts: tuple[str, ...]
    layers: tuple[int, ...]
    relative_norm: float
    active: bool
    undone: bool
    created_at: str
    seconds: float
    fits: bool = True  # False when the entry was computed for another model
    on_top_of: tuple[int, ...] = ()  # entries that were on when this one was computed
    imported_from: str | None = None
    locality_before: float | None = None  # share of a sample of other answers that are the unedited model's
    locality_after: float | None = None
    locality_n: int = 0
    warnings: tuple[str, ...] = ()  # what was past the guard's limits
    layer_source: str = ""  # why these layers: as set, published, from causal tracing, or by which rule


@dataclass(frozen=True)
class TakenView:
    """What the model says to a fact that has just been written into its weights."""

    asked: str
    wanted: str
    said: str
    taken: bool

    @property
    def words(self) -> str:
        if self.taken:
            return f"Asked {self.asked!r}, the model now says {self.said!r}."
        return (
            f"Asked {self.asked!r}, the model says {self.said!r} and not {self.wanted!r}: the edit did not take. Undo "
            "it and try another method, or keep the fact in memory."
        )


@dataclass(frozen=True)
class CorrectionView:
    """What a user meant by a question, in words (MemPrompt)."""

    id: int
    question: str
    text: str
    actor: str
    recorded_at: str
    active: bool = True


@dataclass(frozen=True)
class DueFact:
    """A fact that memory serves often and that the weights do not hold yet."""

    id: int
    times: int
    statement: str


@dataclass(frozen=True)
class ConsolidationView:
    """What became of writing often-used facts into the weights; rates are None where nothing was written."""

    kept: bool
    entry: int | None
    written: tuple[str, ...]
    known: tuple[str, ...] = ()
    clashing: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    efficacy: float | None = None
    generality: float | None = None
    locality_before: float | None = None
    locality_after: float | None = None
    locality_n: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class GateRates:
    """What was measured of the gate at its threshold. Rates are None where nothing was."""

    threshold: float
    true_positive_rate: float | None = None
    false_positive_rate: float | None = None
    positives: int = 0
    negatives: int = 0
    by_kind: tuple[tuple[str, float, int], ...] = ()  # (kind of question, share let through, n)
    measured_on: str = ""


@dataclass(frozen=True)
class MetricCell:
    """A rate between 0 and 1 (or a plain figure) with its bootstrap 95 % interval."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0


@dataclass(frozen=True)
class MethodRow:
    method: str
    title: str
    cells: dict[str, MetricCell]
    seconds: float | None = None
    error: str = ""


@dataclass(frozen=True)
class ProbeAnswer:
    answer: str
    right: bool


@dataclass(frozen=True)
class ProbeRow:
    fact: str
    kind: str
    prompt: str
    expected: str
    answers: dict[str, ProbeAnswer]


@dataclass(frozen=True)
class ProbeLine:
    """A question of a comparison before it is asked; users change these and add their own."""

    fact: int  # which of the comparison's facts it is about, from 0
    kind: str
    prompt: str
    expected: str = ""  # empty, where nothing may change: what the unedited model answers


@dataclass(frozen=True)
class Comparison:
    """Methods side by side on the same facts and probes."""

    facts: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[MethodRow, ...]
    probes: tuple[ProbeRow, ...] = field(default=())


def as_json(value: Any) -> Any:
    """A record as what :mod:`json` writes: dataclasses become dictionaries, tuples lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return value
