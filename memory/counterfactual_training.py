"""Training SERAC's counterfactual pointer on the bundled world's wordings; under a minute on one core.

Held-out wordings (those the world keeps out of all training) are left for measuring.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np

from knowledge.edit import Fact
from knowledge.relations import Relation, fill
from knowledge.world import World
from memory.counterfactual import CHOICES, Case, Choice, Counterfactual, features, masked
from memory.embedder import Embedder

Progress = Callable[[str, int, int], None]

_CONFIRM = (
    "Is {o} {n}?", "Is {n} {o}?", "Is it true that {n} is {o}?", "{N} is {o}, right?", "Isn't {o} {n}?", "Was {o} {n}?",
    "Would you say that {n} is {o}?", "Am I right that {o} is {n}?", "Is it {o} that is {n}?",
    "Did you say {n} is {o}?", "Is it correct that {n} is {o}?", "True or false: {n} is {o}.",
)  # fmt: skip
_CONFIRM_UNSEEN = ("Can you confirm that {n} is {o}?", "So {o} is {n}, isn't it?", "Do you agree that {n} is {o}?")
_NOUN = ("{N}?", "Tell me {n}.", "What is {n}?", "Name {n}.", "Do you know {n}?")


def cases(world: World, rng: random.Random, each: int, *, unseen: bool = False) -> list[tuple[Case, Choice]]:
    """Questions about counterfactual edits of the world with what should answer them, ``each`` a relation and kind."""
    out: list[tuple[Case, Choice]] = []
    for relation in world.relations.values():
        facts = world.by_relation.get(relation.id, ())
        objects = world.objects_of_relation.get(relation.id, ())
        if len(facts) < 4 or len(objects) < 2:
            continue
        for fact in rng.choices(facts, k=each):
            edit = Fact(fact.subject, fact.relation, rng.choice(objects))
            out += _about(relation, edit, rng.choice(objects), rng, unseen)
    return out


def _about(relation: Relation, edit: Fact, other: str, rng: random.Random, unseen: bool) -> list[tuple[Case, Choice]]:
    questions = relation.question_unseen if unseen else relation.question
    clozes = relation.cloze_unseen if unseen else relation.cloze
    nouns = relation.noun_unseen if unseen else relation.noun
    noun = fill(rng.choice(nouns or relation.noun), edit.subject)
    noun = noun[:1].lower() + noun[1:] if noun.startswith("The ") else noun
    named = edit.object if rng.random() < 0.5 else other
    frame = rng.choice(_CONFIRM_UNSEEN if unseen else _CONFIRM)
    confirm = frame.replace("{o}", named).replace("{n}", noun).replace("{N}", noun[:1].upper() + noun[1:])
    asks = rng.choice(_NOUN).replace("{n}", noun).replace("{N}", noun[:1].upper() + noun[1:])
    texts: list[tuple[str, Choice]] = [
        (fill(rng.choice(questions or relation.question), edit.subject), "object"),
        (fill(rng.choice(clozes or relation.cloze), edit.subject), "object"),
        (asks, "object"),
        (confirm, "confirm"),
    ]
    if relation.inverse_question:
        texts.append((fill(rng.choice(relation.inverse_question), edit.object), "subject"))
    return [(Case(text, edit.subject, edit.object), choice) for text, choice in texts]


def measure(model: Counterfactual, world: World, *, each: int = 6, seed: int = 1) -> dict[Choice, tuple[float, int]]:
    """Share of the world's held-out wordings that get the right choice, and how many there were, by that choice."""
    held_out = cases(world, random.Random(seed), each, unseen=True)
    found = [choice for choice, _ in model.choose([case for case, _ in held_out])]
    out: dict[Choice, tuple[float, int]] = {}
    for kind in CHOICES:
        flags = [got == kind for got, (_, want) in zip(found, held_out, strict=True) if want == kind]
        out[kind] = (sum(flags) / max(1, len(flags)), len(flags))
    return out


def train(
    world: World, embedder: Embedder, *, seed: int = 0, each: int = 12, progress: Progress | None = None
) -> Counterfactual:
    """Fits the softmax; ``each`` is how many edits a relation gives."""
    import torch

    tell = progress or (lambda what, done, total: None)
    examples = cases(world, random.Random(seed), each)
    pairs = [masked(case) for case, _ in examples]
    texts = [text for text, _ in pairs]
    chunks = []
    for start in range(0, len(texts), 512):
        tell("embedding questions", start, len(texts))
        chunks.append(embedder.encode(texts[start : start + 512]))
    inputs = features(np.concatenate(chunks), np.array([named for _, named in pairs], dtype=np.float32))
    x = torch.from_numpy(inputs)
    y = torch.tensor([CHOICES.index(choice) for _, choice in examples])
    rarity = 1 / torch.bincount(y, minlength=len(CHOICES)).clamp(min=1).float()
    weight = torch.zeros(x.shape[1], len(CHOICES), requires_grad=True)
    bias = torch.zeros(len(CHOICES), requires_grad=True)
    optimiser = torch.optim.AdamW([weight, bias], lr=0.02, weight_decay=1e-2)
    for _ in range(300):
        loss = torch.nn.functional.cross_entropy(x @ weight + bias, y, weight=rarity / rarity.mean())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    tell("embedding questions", len(texts), len(texts))
    return Counterfactual(embedder, weight.detach().numpy(), bias.detach().numpy())
