"""Training the scope head on wordings alone; some minutes on two cores.

No question of any evaluation file is seen. Pairs are (a fact's wording, another wording of the same relation) against
(a fact's wording, a wording of another relation that such a subject may have). Folds leave whole relations out of the
bank, so that the network learns what to think of relations it has no wordings of.

Several networks are trained and averaged: which wordings a fold hides, and where a network starts, moved the true
positives by several points from seed to seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from memory.calibration import Calibration
from memory.embedder import Embedder
from memory.scope import FILLER, Network, ScopeHead
from memory.scope_features import Bank, Matrix, Meaning, features
from memory.vocabulary import Vocabulary

_FOLDS = 4
_HIDDEN = 0.15  # share of the wordings of listed relations that a fold keeps out of its bank
_UNITS = 24
_ROUNDS = 3  # partitions into folds, each with other wordings hidden
_NETWORKS = 6
_CHAINS = 0  # composed questions of two or three hops; half go into the bank, half are examples
CHAIN = "_chain"  # their group: a question about something else that merely names the subject on the way

Progress = Callable[[str, int, int], None]


def train(vocabulary: Vocabulary, embedder: Embedder, *, seed: int = 0, progress: Progress | None = None) -> ScopeHead:
    """Trains a head for an encoder; its calibration is a placeholder until :func:`memory.calibration.calibrate`."""
    tell = progress or (lambda what, done, total: None)
    rng = random.Random(seed)
    material = _Material(vocabulary, embedder, tell)
    order = list(range(len(material.groups)))
    inputs: list[Matrix] = []
    labels: list[NDArray[np.float32]] = []
    for part in range(_ROUNDS * _FOLDS):
        tell("training the scope head", part, _ROUNDS * _FOLDS + 1)
        if part % _FOLDS == 0:
            rng.shuffle(order)
        held = set(order[part % _FOLDS :: _FOLDS])  # relations that nobody has listed
        hidden = {row for row in range(len(material.group)) if rng.random() < _HIDDEN}  # wordings nobody has listed
        keep = [g not in held and row not in hidden for row, g in enumerate(material.group.tolist())]
        bank = material.bank(keep, seed + part)
        for groups, share, asked in ((held, 2, None), (set(order) - held, 2, hidden)):
            x, y = _examples(material, bank, groups, share, asked, rng)
            inputs.append(x)
            labels.append(y)
    network = _fit(np.concatenate(inputs), np.concatenate(labels), seed)
    bank = material.bank([True] * len(material.group), seed)
    tell("training the scope head", 1, 1)
    relations = {sense.id: material.number[sense.group] for sense in vocabulary.senses if sense.subject_type}
    return ScopeHead(embedder, bank, network, relations, Calibration(0.5, embedder.id))


class _Material:
    """All wordings of a vocabulary, masked and embedded."""

    def __init__(self, vocabulary: Vocabulary, embedder: Embedder, tell: Progress) -> None:
        self.groups = [*sorted({sense.group for sense in vocabulary.senses}), CHAIN]
        self.number = {name: at for at, name in enumerate(self.groups)}
        texts: list[str] = []
        group: list[int] = []
        self.by_group: dict[int, dict[str, list[int]]] = {}
        for sense in vocabulary.senses:
            nouns = tuple(f"What is {noun}?" for noun in sense.noun)
            lists = (("cloze", sense.cloze), ("question", sense.question), ("noun", nouns), ("more", sense.more))
            for part, wordings in lists:
                for wording in wordings:
                    text = wording.replace("{}", FILLER)
                    rows = self.by_group.setdefault(self.number[sense.group], {}).setdefault(part, [])
                    rows.append(len(texts))
                    texts.append(text[0].upper() + text[1:])
                    group.append(self.number[sense.group])
        chains = compose(vocabulary, _CHAINS, random.Random(1))
        self.chains: dict[int, list[int]] = {}  # group to rows of chain questions that it has a part in
        self.spare: set[int] = set()  # rows that are kept out of the bank, to be asked in training
        for number, (text, parts) in enumerate(chains):
            for part in parts if number % 2 else ():
                self.chains.setdefault(self.number[part], []).append(len(texts))
            if number % 2:
                self.spare.add(len(texts))
            texts.append(text)
            group.append(self.number[CHAIN])
        self.group = np.array(group)
        chunks = []
        for start in range(0, len(texts), 512):
            tell("embedding the wordings of relations", start, len(texts))
            chunks.append(embedder.encode(texts[start : start + 512]))
        self.vectors = np.concatenate(chunks)
        kinds = {kind for sense in vocabulary.senses for kind in sense.kinds}
        has = {(self.number[sense.group], kind) for sense in vocabulary.senses for kind in sense.kinds}
        has |= {(self.number[CHAIN], kind) for kind in kinds}
        count = len(self.groups)
        table = np.array([[(at, kind) in has for kind in sorted(kinds)] for at in range(count)], dtype=int)
        self.compatible = table @ table.T > 0
        self.kin = _kin(vocabulary, self.number)
        self.near = np.array([[not vocabulary.apart(a, b) for b in self.groups] for a in self.groups])

    def bank(self, keep: list[bool], seed: int) -> Bank:
        mask = np.array([kept and row not in self.spare for row, kept in enumerate(keep)])
        vectors, group = self.vectors[mask], self.group[mask]
        classifier = _classifier(vectors, group, len(self.groups), seed)
        return Bank(vectors, group, classifier, self.compatible, self.near, self.kin)


def _kin(vocabulary: Vocabulary, number: dict[str, int]) -> NDArray[np.bool_]:
    """Which groups are asked about the very same kind of subject: by the world's types where both have one."""
    types: dict[int, set[str]] = {at: set() for at in number.values()}
    kinds: dict[int, set[str]] = {at: set() for at in number.values()}
    for sense in vocabulary.senses:
        kinds[number[sense.group]] |= sense.kinds
        types[number[sense.group]] |= {sense.subject_type} - {""}
    kin = np.eye(len(number), dtype=bool)
    for a in number.values():
        for b in number.values():
            both = types[a] and types[b]
            kin[a, b] |= bool(types[a] & types[b]) if both else bool(kinds[a] & kinds[b])
    return kin


def compose(vocabulary: Vocabulary, count: int, rng: random.Random) -> list[tuple[str, tuple[str, ...]]]:
    """Questions of two or three hops about a masked subject, each with the groups that it is made of.

    A question of one relation gets a noun phrase of another in its subject's place: "Who is the mayor of the city where
    it stands?". Which objects fit which relations is known for the world's relations only; the others are joined at
    random, which is good enough for telling that there are several hops.
    """
    chains: list[tuple[str, tuple[str, ...]]] = []
    nouns = [sense for sense in vocabulary.senses if sense.noun]
    while len(chains) < count:
        inner, outer = rng.choice(nouns), rng.choice(vocabulary.senses)
        phrase, parts = rng.choice(inner.noun).replace("{}", FILLER), [inner.group, outer.group]
        if rng.random() < 0.3:
            middle = rng.choice(nouns)
            phrase, parts = rng.choice(middle.noun).replace("{}", phrase), [*parts, middle.group]
        wordings = [*outer.question, *(f"What is {noun}?" for noun in outer.noun), *outer.cloze[:2]]
        text = rng.choice(wordings).replace("{}", phrase)
        if inner.group != outer.group:
            chains.append((text[0].upper() + text[1:], tuple(parts)))
    return chains


def _classifier(vectors: Matrix, group: NDArray[np.int64], count: int, seed: int, steps: int = 250) -> Matrix:
    import torch

    noise = torch.Generator().manual_seed(seed)
    weight = torch.zeros(vectors.shape[1], count, requires_grad=True)
    x, y = torch.from_numpy(vectors), torch.from_numpy(group)
    rarity = torch.from_numpy(1 / np.sqrt(np.bincount(group, minlength=count).clip(1))).float()
    optimiser = torch.optim.AdamW([weight], lr=0.05, weight_decay=3e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.05, steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (1024,), generator=noise)
        keep = (torch.rand(1024, x.shape[1], generator=noise) > 0.1).float() / 0.9
        loss = torch.nn.functional.cross_entropy(
            (x[rows] * keep) @ weight, y[rows], weight=rarity / rarity.mean(), label_smoothing=0.05
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    out: Matrix = weight.detach().numpy()
    return out


def _examples(
    material: _Material,
    bank: Bank,
    groups: Collection[int],
    share: int,
    asked: Collection[int] | None,
    rng: random.Random,
) -> tuple[Matrix, NDArray[np.float32]]:
    """Pairs among the relations of ``groups``, questions only from the rows ``asked``: features and labels."""
    here = [group for group in sorted(groups) if "cloze" in material.by_group.get(group, {})]
    everything = {group: [row for rows in material.by_group[group].values() for row in rows] for group in here}
    if asked is not None:
        everything = {group: [row for row in rows if row in asked] or rows for group, rows in everything.items()}
    picked: list[tuple[int, int, int, int, int]] = []
    for group in here:
        rivals = [g for g in here if not material.near[group, g] and material.compatible[group, g]]
        for _ in range(6 * share):
            prompt = rng.choice(material.by_group[group]["cloze"])
            asks = material.by_group[group].get("question", [prompt])
            question = rng.choice(asks) if rng.random() < 0.6 else prompt  # some facts have no question of their own
            told = group if rng.random() < 0.5 else -1
            query = rng.choice(everything[group])
            if query not in (prompt, question) or rng.random() < 0.2:
                picked.append((query, prompt, question, told, 1))
            usual = [g for g in rivals if material.kin[group, g]] or rivals
            for rival in (rng.choice(rivals), rng.choice(usual)) if rivals else ():
                picked.append((rng.choice(everything[rival]), prompt, question, told, 0))
            if group in material.chains and rng.random() < 0.7:
                picked.append((rng.choice(material.chains[group]), prompt, question, told, 0))
    table = np.array(picked)
    query, prompt, question = (material.vectors[table[:, part]] for part in range(3))
    meaning = Meaning.of(bank, prompt, question, table[:, 3])
    return features(bank, query, prompt, question, meaning), table[:, 4].astype(np.float32)


def _fit(inputs: Matrix, labels: NDArray[np.float32], seed: int) -> Network:
    """The mean of several networks, as one with all their units side by side."""
    mean, scale = inputs.mean(0), inputs.std(0) + 1e-6
    standard = (inputs - mean) / scale
    parts = [_fit_one(standard, labels, seed * _NETWORKS + number) for number in range(_NETWORKS)]
    hidden, hidden_bias, out, out_bias = zip(*parts, strict=True)
    return Network(
        mean.astype(np.float32),
        scale.astype(np.float32),
        np.concatenate(hidden, axis=1),
        np.concatenate(hidden_bias),
        (np.concatenate(out) / _NETWORKS).astype(np.float32),
        np.array(np.mean(out_bias, axis=0), np.float32),
    )


def _fit_one(inputs: Matrix, labels: NDArray[np.float32], seed: int, steps: int = 600) -> list[Matrix]:
    """(features, units), (units,), (units,) and (1,) of one network."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels)

    def start(*shape: int) -> Any:
        return (torch.randn(*shape, generator=draw) / shape[0] ** 0.5).requires_grad_(True)

    hidden, out = start(inputs.shape[1], _UNITS), start(_UNITS)
    hidden_bias, out_bias = torch.zeros(_UNITS, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.AdamW([hidden, hidden_bias, out, out_bias], lr=0.01, weight_decay=1e-2)
    for _ in range(steps):
        rows = torch.randint(len(x), (4096,), generator=draw)
        logits = torch.tanh(x[rows] @ hidden + hidden_bias) @ out + out_bias
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return [tensor.detach().numpy() for tensor in (hidden, hidden_bias, out, out_bias)]
