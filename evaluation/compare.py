"""Methods side by side: the same edits, the same probes, every answer kept.

    found = compare(lm, [edit], ["base", "ike", "rome", "r-rome"], load_world())
    print(found.to_csv())

All edits are made together (one batch), once for each method; then every method answers every probe. The answers of
all methods are computed in common batches, each row under the overlay of its own method, so that a comparison of weight
editors costs little more than one of them. The unedited model is always among the rows: what it gets right already is
no success of an edit.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event

from evaluation.methods import Method, Progress, Treatment, base, method
from evaluation.metrics import fluency, generation_right, probability_right, token_accuracy
from evaluation.report import Comparison, ProbeAnswer, ProbeResult, Row, figures
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, PalimpsestError
from knowledge.probes import DEFAULT_AMOUNTS, Amounts, Probe, probes_for
from knowledge.relations import fill
from knowledge.text import answer_matches
from knowledge.world import World
from language_model.model import LanguageModel
from language_model.text import Prompt

_ROWS = 64  # answered between two looks at the progress bar
_LONG = 100  # tokens of a text whose fluency is measured
_WORD = re.compile(r"\w+|[^\w\s]")
_SENTENCE_END = re.compile(r"(?<!\b\w)(?<!\b[SMDJ][trsr])(?<!\bMrs)[.!?;](?=\s|$)|\n")


@dataclass
class _Running:
    """A method on its way through the comparison."""

    method: Method
    treatment: Treatment | None = None
    seconds: float | None = None
    answering: float = 0.0
    error: str = ""
    answers: dict[int, str] = field(default_factory=dict)
    texts: dict[int, list[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.method.name


def compare(
    lm: LanguageModel,
    edits: Sequence[Edit],
    methods: Sequence[Method | str],
    world: World,
    *,
    progress: Progress | None = None,
    cancel: Event | None = None,
    seed: int = 0,
    amounts: Amounts = DEFAULT_AMOUNTS,
    max_new_tokens: int = 32,
    probability: bool = True,
    probes: Callable[[Edit], Sequence[Probe]] | None = None,
) -> Comparison:
    """Measures the methods on the edits.

    Args:
        methods: methods or their names; the unedited model is put first where it is missing.
        progress: told the share done and what is being done.
        cancel: when set, the computation stops and the methods that are finished come back.
        seed: chooses the probes; the same seed, the same probes.
        amounts: how many probes of each kind.
        max_new_tokens: of an answer.
        probability: also score by the probability and the token protocol (one more pass a probe).
        probes: gives the probes of an edit; by default they are made out of its relation.

    Raises:
        InvalidInput: there is no edit.
        UnknownName: a method's name is not known. What a single method refuses stands in its row's ``error``.
    """
    if not edits:
        raise InvalidInput("There is nothing to compare on: give at least one fact.")
    chosen = {m.name: m for m in (method(item) if isinstance(item, str) else item for item in methods)}
    chosen = {"base": chosen.get("base") or base()} | chosen
    report, stop = progress or (lambda share, what: None), cancel or Event()
    running = [_Running(item) for item in chosen.values()]
    asked = [
        (number, probe)
        for number, edit in enumerate(edits)
        for probe in (probes(edit) if probes else probes_for(edit, world, seed=seed, amounts=amounts).probes)
    ]
    work = _Work(lm, tuple(edits), asked, running, report, stop, max_new_tokens)
    try:
        work.make()
        work.answer()
        work.write()
        return work.result(probability)
    finally:
        for row in running:
            if row.treatment is not None:
                row.treatment.close()


class _Work:
    def __init__(
        self,
        lm: LanguageModel,
        edits: tuple[Edit, ...],
        asked: list[tuple[int, Probe]],
        rows: list[_Running],
        report: Progress,
        stop: Event,
        max_new_tokens: int,
    ) -> None:
        self.lm, self.edits, self.asked, self.rows = lm, edits, asked, rows
        self.report, self.stop, self.max_new_tokens = report, stop, max_new_tokens

    # ------------------------------------------------------------------------------------------------ the edits

    def make(self) -> None:
        """Makes the edits by each method; half of the progress bar."""
        share = 0.5 / len(self.rows)
        for number, row in enumerate(self.rows):
            if self.stop.is_set():
                return

            def inner(done: float, what: str, at: int = number, title: str = row.method.title) -> None:
                self.report(share * (at + min(max(done, 0.0), 1.0)), f"{title}: {what}")

            inner(0.0, "making the edit")
            start = time.perf_counter()
            try:
                row.treatment = row.method.make(self.lm, self.edits, inner, self.stop)
            except PalimpsestError as error:
                row.error = str(error)
            row.seconds = time.perf_counter() - start

    # ------------------------------------------------------------------------------------------------ the answers

    @property
    def _able(self) -> list[_Running]:
        return [row for row in self.rows if row.treatment is not None]

    def answer(self) -> None:
        """Every method answers every probe."""
        batched, total = [], max(1, len(self._able) * len(self.asked))
        done = 0
        for row in self._able:
            assert row.treatment is not None
            for at, (_, probe) in enumerate(self.asked):
                if self.stop.is_set():
                    return
                if row.treatment.answer is None:
                    batched.append((row, at, prompt_of(self.lm, row.treatment, probe)))
                    continue
                start = time.perf_counter()
                text = row.treatment.answer(probe.text)
                row.answering += time.perf_counter() - start
                if not self.stop.is_set():  # a stopped answer is half an answer
                    row.answers[at] = text.strip()
                done += 1
                self.report(0.5 + 0.3 * done / total, f"{row.method.title}: answering")
        for start_at in range(0, len(batched), _ROWS):
            part = batched[start_at : start_at + _ROWS]
            self.report(0.5 + 0.3 * done / total, f"{part[0][0].method.title}: answering")
            start = time.perf_counter()
            texts = self.lm.generate(
                [prompt for _, _, prompt in part],
                max_new_tokens=self.max_new_tokens,
                overlays=[row.treatment.overlay for row, _, _ in part if row.treatment is not None],
                cancel=self.stop,
            )
            if self.stop.is_set():
                return
            spent = (time.perf_counter() - start) / len(part)
            for (row, at, prompt), text in zip(part, texts, strict=True):
                names = (self.asked[at][1].expected or "", *self.asked[at][1].aliases)
                row.answers[at] = completion(text, names) if isinstance(prompt, str) else text.strip()
                row.answering += spent
            done += len(part)

    def write(self) -> None:
        """Texts of about 100 tokens from each method, for fluency: the model goes on freely about each subject."""
        jobs = [(row, number, text) for row in self._able for number, text in self._openings()]
        for start_at in range(0, len(jobs), _ROWS):
            if self.stop.is_set():
                return
            part = jobs[start_at : start_at + _ROWS]
            self.report(0.8 + 0.1 * start_at / len(jobs), f"{part[0][0].method.title}: writing freely")
            overlays = [row.treatment.overlay for row, _, _ in part if row.treatment is not None]
            prompts = [(row.treatment.preface if row.treatment else "") + text for row, _, text in part]
            texts = self.lm.generate(prompts, max_new_tokens=_LONG, overlays=overlays, cancel=self.stop)
            for (row, number, _), text in zip(part, texts, strict=True):
                row.texts.setdefault(number, []).append(text)

    def _openings(self) -> Iterator[tuple[int, str]]:
        """Beginnings that leave open how to go on. A model that ends early is given several, counted as one text."""
        for number, edit in enumerate(self.edits):
            yield number, edit.subject
            yield number, fill("{} is", edit.subject)
            yield number, fill("The most important thing about {} is", edit.subject)

    # ------------------------------------------------------------------------------------------------ the figures

    def result(self, probability: bool) -> Comparison:
        complete = [row for row in self._able if len(row.answers) == len(self.asked)]
        plain = self.rows[0].answers if self.rows[0] in complete else {}
        probes = [
            ProbeResult(self.edits[number].statement, probe, probe.expected or plain.get(at, ""), {})
            for at, (number, probe) in enumerate(self.asked)
        ]
        scores = self._scores(complete, probes, plain) if probability and not self.stop.is_set() else {}
        for row in complete:
            for at, item in enumerate(probes):
                answer = row.answers[at]
                right = generation_right(answer, item.expected, item.probe.aliases)
                item.answers[row.name] = ProbeAnswer(answer, right, *scores.get((row.name, at), (None, None)))
        self.report(1.0, "done")
        rows = [self._row(row, probes) for row in self.rows if row in complete or row.error]
        return Comparison(self.edits, tuple(rows), tuple(probes), cancelled=self.stop.is_set())

    def _row(self, row: _Running, probes: Sequence[ProbeResult]) -> Row:
        if row.error:
            return Row(row.name, row.method.title, seconds=row.seconds, error=row.error)
        texts = [fluency(_WORD.findall(" ".join(parts))) for parts in row.texts.values()]
        each = row.answering / max(1, len(row.answers))
        return figures(row.name, row.method.title, probes, texts, row.seconds, each)

    def _scores(
        self, rows: Sequence[_Running], probes: Sequence[ProbeResult], plain: dict[int, str]
    ) -> dict[tuple[str, int], tuple[bool | None, float | None]]:
        """By method and probe: whether the expected answer is the more probable one, and the token accuracy."""
        jobs: list[tuple[str, int, Prompt, str, str | None, _Running]] = []
        for row in rows:
            if row.treatment is None or row.treatment.answer is not None:
                continue  # a chain of steps has no probability
            for at, item in enumerate(probes):
                if item.expected:
                    rival = self._rival(at, item, plain)
                    jobs.append(
                        (row.name, at, prompt_of(self.lm, row.treatment, item.probe), item.expected, rival, row)
                    )
        found: dict[tuple[str, int], tuple[bool | None, float | None]] = {}
        for start in range(0, len(jobs), _ROWS):
            if self.stop.is_set():
                return {}
            self.report(0.9 + 0.1 * start / len(jobs), "scoring")
            part = jobs[start : start + _ROWS]
            flat = [(job, target) for job in part for target in (job[3], job[4]) if target is not None]
            overlays = [job[5].treatment.overlay if job[5].treatment else None for job, _ in flat]
            scores = iter(self.lm.score([job[2] for job, _ in flat], [target for _, target in flat], overlays=overlays))
            for job in part:
                wanted = next(scores)
                more = probability_right(wanted, next(scores)) if job[4] is not None else None
                found[job[0], job[1]] = (more, token_accuracy(wanted))
        return found

    def _rival(self, at: int, item: ProbeResult, plain: dict[int, str]) -> str | None:
        """What the expected answer competes with: the old object, or, where nothing may change, the new one."""
        probe, edit = item.probe, self.edits[self.asked[at][0]]
        rival = (probe.true or plain.get(at)) if probe.must_change else edit.target_new
        return rival if rival and not answer_matches(rival, item.expected, probe.aliases) else None


def prompt_of(lm: LanguageModel, treatment: Treatment, probe: Probe) -> Prompt:
    """What the model is asked by a treatment for a probe."""
    if treatment.prompt is not None:
        return treatment.prompt(probe.text)
    return probe.text if probe.form == "completion" else lm.chat(probe.text)


def completion(text: str, names: Sequence[str] = ()) -> str:
    """What a completion says before it goes on to something else: up to the end of its first sentence.

    A sentence's end and an abbreviation look alike ("K. It is" and "J. R. R. Tolkien"), so one of the ``names`` with a
    period behind it counts as a whole answer.
    """
    for name in filter(None, names):
        found = re.match(rf"\s*((?:the )?{re.escape(name)})\s*(?:[.!?;\n]|$)", text, re.IGNORECASE)
        if found:
            return found[1]
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0].strip()
