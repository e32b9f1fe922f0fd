"""The words in which every strategy speaks to a language model, and the readers of its replies.

They stand in one place because two sides must agree to the letter: the strategies, which send these prompts to any
model, and the bundled model's corpus, which trains on them. Each function returns the messages of a chat; a model
without a chat template gets the same text as a plain completion (``LanguageModel.render``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


UNKNOWN = "I don't know"


def user(content: str) -> Message:
    return {"role": "user", "content": content}


def assistant(content: str) -> Message:
    return {"role": "assistant", "content": content}


# ---------------------------------------------------------------------------------------------- facts in context


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One worked example of IKE (2305.12740, section 3.2): a new fact, a question, and the answer to give."""

    facts: tuple[str, ...]
    question: str
    answer: str


def _facts_block(facts: Sequence[str]) -> str:
    return "".join(f"New fact: {fact}\n" for fact in facts)


def with_facts(
    question: str,
    facts: Sequence[str],
    demonstrations: Sequence[Demonstration] = (),
    history: Sequence[Message] = (),
) -> list[Message]:
    """IKE's prompt: demonstrations, then the facts that hold now, then the question (2305.12740, section 3).

    The question stands before the facts too: a causal model that knows what is asked can judge each fact where it
    reads it, instead of having to remember all of them ("query-aware contextualization", 2307.03172, section 4.2).
    """
    shown = "".join(f"{_asked(d.question, d.facts)}\nAnswer: {d.answer}\n\n" for d in demonstrations)
    return [*history, user(f"{shown}{_asked(question, facts)}")]


def _asked(question: str, facts: Sequence[str]) -> str:
    first = f"Question: {question}\n" if facts else ""
    return f"{first}{_facts_block(facts)}Question: {question}"


def with_correction(question: str, correction: str, history: Sequence[Message] = ()) -> list[Message]:
    """MemPrompt's prompt: the user's earlier correction stands after the question (2201.06009, section 3)."""
    return [*history, user(f"{question}\nClarification: {correction}")]


# ---------------------------------------------------------------------------------------- MeLLo (2305.14795, section 5)


@dataclass(frozen=True, slots=True)
class Hop:
    """A solved step of a chain."""

    subquestion: str
    answer: str


def next_step(question: str, hops: Sequence[Hop]) -> list[Message]:
    """Asks for the next subquestion, or for the final answer once the chain is complete."""
    solved = "".join(f"Subquestion: {hop.subquestion}\nAnswer: {hop.answer}\n" for hop in hops)
    return [user(f"Break this question into steps: {question}\n{solved}What is next?")]


def read_step(reply: str) -> tuple[Literal["subquestion", "final", "unclear"], str]:
    """What a model said to :func:`next_step`: its kind and its text."""
    for line in reply.splitlines():
        head, _, tail = line.strip().partition(":")
        if tail.strip() and head.strip().lower() == "subquestion":
            return "subquestion", tail.strip()
        if tail.strip() and head.strip().lower() in ("final answer", "answer"):
            return "final", tail.strip()
    return "unclear", reply.strip()


def say_subquestion(subquestion: str) -> str:
    return f"Subquestion: {subquestion}"


def say_final(answer: str) -> str:
    return f"Final answer: {answer}"


def compare_fact(subquestion: str, tentative: str, fact: str) -> list[Message]:
    """Asks whether a retrieved fact contradicts the tentative answer of a subquestion."""
    return [
        user(
            f"Question: {subquestion}\nAnswer: {tentative}\nRetrieved fact: {fact}\n"
            "Does the fact contradict the answer, agree with it, or not apply?"
        )
    ]


Verdict = Literal["contradicts", "agrees", "does not apply", "unclear"]


def say_verdict(verdict: Verdict, answer: str) -> str:
    """The reply that :func:`compare_fact` asks for; ``answer`` is the one to go on with."""
    return f"It {verdict}. Answer: {answer}"


def read_verdict(reply: str) -> tuple[Verdict, str | None]:
    """A model's reply to :func:`compare_fact`: the verdict and the answer to go on with, None where it gave none."""
    low = reply.lower()
    _, marker, answer = reply.partition("Answer:")
    text = answer.strip().splitlines()[0].strip() if marker and answer.strip() else None
    if "not apply" in low or "unrelated" in low:
        return "does not apply", text
    if "contradict" in low and "not contradict" not in low:
        return "contradicts", text
    if "agree" in low or "not contradict" in low:
        return "agrees", text
    return "unclear", text
