"""Measures the bundled model: ``python -m app train bundled --report``.

Greedy answers, exact match, on wordings and names that no training saw (except the row that says so). Nothing here
knows how the model was trained beyond the prompts: another model in the same folder is measured the same way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from knowledge.text import answer_matches
from knowledge.world import load_world
from language_model.bundled import chains, context, recall
from language_model.bundled.draw import WORDINGS, Draw, Example
from language_model.prompts import UNKNOWN, Hop, Message, next_step, read_step, user

if TYPE_CHECKING:
    from language_model.model import LanguageModel

Progress = Callable[[float, str], None]
LONGEST_ANSWER = 48  # tokens


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the model card."""

    name: str
    value: float
    target: float | None
    n: int
    at_most: bool = False  # the target is an upper bound

    @property
    def met(self) -> bool:
        if self.target is None:
            return True
        return self.value <= self.target if self.at_most else self.value >= self.target


@dataclass(frozen=True, slots=True)
class Miss:
    """A case that failed, to be looked at."""

    row: str
    prompt: str
    wanted: str
    given: str


def unseen_names() -> tuple[str, ...]:
    """Hand-written names of every shape that the corpus does not contain."""
    return tuple(filter(None, (WORDINGS / "unseen_names.txt").read_text(encoding="utf-8").splitlines()))


class Report:
    """Runs all rows.

    Args:
        lm: the model, normally ``LanguageModel.load("bundled")``.
        n: cases a row.
        seed: draws other cases; the figures are stable within about one point.
    """

    def __init__(self, lm: LanguageModel, *, n: int = 500, seed: int = 7, batch: int = 64) -> None:
        self.lm, self.n, self.batch = lm, n, batch
        world = load_world()
        self.seen = Draw(world, random.Random(seed))
        self.unseen = Draw(world, random.Random(seed), unseen=True)
        self.strangers = Draw(world, random.Random(seed), unseen=True, strangers=unseen_names())
        self.misses: list[Miss] = []

    def run(self, progress: Progress | None = None) -> list[Figure]:
        rows: list[Callable[[], list[Figure]]] = [
            lambda: self._row("recall, trained wordings", recall.chat_question, self.seen, 0.99, self.n * 2),
            self._recall_unseen,
            lambda: self._row("recall as a completion, unseen wordings", recall.completion, self.unseen, None),
            lambda: self._row("two facts asked as one, unseen wordings", recall.composite, self.unseen, None),
            lambda: self._row("follow-up turns, unseen wordings", recall.follow_up, self.unseen, None),
            lambda: self._row(
                "new fact in context, unseen names", lambda d: context.override(d, 1), self.strangers, 0.97
            ),
            lambda: self._row(
                "8 facts in context, unseen names", lambda d: context.override(d, 8), self.strangers, 0.95
            ),
            lambda: self._retained("retain: same relation, other subject", "relation"),
            lambda: self._retained("retain: same subject, other relation", "subject"),
            lambda: self._row("new fact in context, used through the weights", context.one_hop, self.unseen, None),
            lambda: self._row("fact against tentative answer (MeLLo)", context.compare, self.strangers, None),
            lambda: self._chains(2, 0.90),
            lambda: self._chains(3, 0.90),
            lambda: self._chains(4, None),
            lambda: self._row('unknown subject: "I don\'t know"', recall.unknown, self.strangers, 0.90),
        ]
        figures: list[Figure] = []
        for index, row in enumerate(rows):
            figures.extend(row())
            if progress is not None:
                progress((index + 1) / len(rows), figures[-1].name)
        return figures

    def _row(
        self, name: str, skill: Callable[[Draw], Example], draw: Draw, target: float | None, n: int | None = None
    ) -> list[Figure]:
        examples: list[Example] = []
        while len(examples) < (n or self.n):
            example = skill(draw)
            if self.lm.count_tokens(_prompt(example)) <= self.lm.context - LONGEST_ANSWER:
                examples.append(example)
        answers = self._answers(examples)
        right = sum(self._right(name, example, answer) for example, answer in zip(examples, answers, strict=True))
        return [Figure(name, right / len(examples), target, len(examples))]

    def _recall_unseen(self) -> list[Figure]:
        """Every subject is known here, so each "I don't know" is a refusal that should not be."""
        examples = [recall.chat_question(self.unseen) for _ in range(self.n * 2)]
        answers = self._answers(examples)
        name = "recall, unseen wordings"
        right = sum(self._right(name, example, answer) for example, answer in zip(examples, answers, strict=True))
        refused = sum(answer_matches(answer, UNKNOWN) for answer in answers)
        total = len(examples)
        return [
            Figure(name, right / total, 0.90, total),
            Figure("known facts refused, unseen wordings", refused / total, 0.02, total, at_most=True),
        ]

    def _retained(self, name: str, kind: str) -> list[Figure]:
        """Facts that do not apply: the share right, and the share that is what the model says without them."""
        examples = [context.retain(self.strangers, kind) for _ in range(self.n)]
        examples = [e for e in examples if self.lm.count_tokens(_prompt(e)) <= self.lm.context - LONGEST_ANSWER]
        answers = self._answers(examples)
        alone: list[list[Message] | str] = []
        for example in examples:
            question = example.messages[-1]["content"].rpartition("Question: ")[2]
            alone.append([*example.messages[:-1], user(question)])
        before = generate(self.lm, alone, batch=self.batch)
        right = sum(self._right(name, example, answer) for example, answer in zip(examples, answers, strict=True))
        same = sum(answer_matches(answer, old) for answer, old in zip(answers, before, strict=True))
        total = len(examples)
        return [
            Figure(name, right / total, 0.98, total),
            Figure(f"{name}, as without the facts", same / total, None, total),
        ]

    def _chains(self, hops: int, target: float | None) -> list[Figure]:
        """Questions of several hops, answered step by step by the model alone."""
        name = f"{hops}-hop chains without edits, unseen wordings"
        tasks = [chains.chain(self.unseen, hops) for _ in range(self.n)]
        finals = walk(self.lm, [task.question for task in tasks], batch=self.batch)
        right = 0
        for task, given in zip(tasks, finals, strict=True):
            end = task.facts[-1]
            names = [
                name
                for obj in self.unseen.world.objects(end.subject, end.relation)
                for name in (obj, *self.unseen.world.aliases_of(obj))
            ]
            right += self._right(name, Example(task.answer, (user(task.question),), also=tuple(names)), given)
        return [Figure(name, right / len(tasks), target, len(tasks))]

    def _answers(self, examples: Sequence[Example]) -> list[str]:
        return generate(self.lm, [_prompt(example) for example in examples], batch=self.batch)

    def _right(self, row: str, example: Example, answer: str) -> bool:
        right = answer_matches(answer, example.answer, example.also)
        if not right:
            prompt = example.messages[-1]["content"] if example.messages else example.text
            self.misses.append(Miss(row, prompt, example.answer, answer))
        return right


def _prompt(example: Example) -> list[Message] | str:
    return list(example.messages) if example.messages else example.text


def generate(lm: LanguageModel, prompts: Sequence[list[Message] | str], *, batch: int = 64) -> list[str]:
    """Greedy answers in the given order, prompts of similar length together."""
    order = sorted(range(len(prompts)), key=lambda index: lm.count_tokens(prompts[index]))
    answers = [""] * len(prompts)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        given = lm.generate([prompts[index] for index in part], max_new_tokens=LONGEST_ANSWER)
        for index, answer in zip(part, given, strict=True):
            answers[index] = answer
    return answers


def walk(lm: LanguageModel, questions: Sequence[str], *, most: int = 5, batch: int = 64) -> list[str]:
    """The final answers of multi-hop questions, each hop answered by the model itself (MeLLo without a memory)."""
    hops: list[list[Hop]] = [[] for _ in questions]
    finals = ["" for _ in questions]
    open_ = list(range(len(questions)))
    for _ in range(most + 1):
        replies = generate(lm, [next_step(questions[i], hops[i]) for i in open_], batch=batch)
        asking: list[tuple[int, str]] = []
        for index, reply in zip(open_, replies, strict=True):
            kind, text = read_step(reply)
            if kind == "subquestion":
                asking.append((index, text))
            else:
                finals[index] = text
        answers = generate(lm, [[user(text)] for _, text in asking], batch=batch)
        for (index, text), answer in zip(asking, answers, strict=True):
            hops[index].append(Hop(text, answer))
        open_ = [index for index, _ in asking]
        if not open_:
            break
    return finals


def table(figures: Sequence[Figure]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | value | to reach | n |", "|---|---|---|---|"]
    for figure in figures:
        bound = "" if figure.target is None else f"{'≤' if figure.at_most else '≥'} {figure.target:.0%}"
        mark = "" if figure.target is None else (" ✓" if figure.met else " ✗")
        lines.append(f"| {figure.name} | {figure.value:.1%}{mark} | {bound} | {figure.n} |")
    return "\n".join(lines)
