"""Causal tracing (2202.05262, section 2): at which layer does a model hold the facts that we want to edit?

    found = locate(lm, facts_known(lm, world))
    found.layer                              # where one fact is written; found.window for a spread edit
    save_plot(found, Path("trace.png"))

The subject's embeddings are corrupted with noise, so that the answer is lost; then the feed-forward outputs of a few
neighbouring layers are set back to their clean values at one place, and what comes back of the answer's probability
is that place's indirect effect. Averaged over facts, at the subject's last token, the layer with the largest one is
where edits are made.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from editors.base import EditRefused
from editors.located import PLACES, Located, load_located, located_path, save_located
from editors.rewrites import Row, forms_of, tokenise
from knowledge.edit import Edit
from knowledge.world import World
from language_model.model import LanguageModel

KINDS = ("feed-forward", "attention", "block")

__all__ = [
    "KINDS",
    "PLACES",
    "Located",
    "facts_known",
    "load_located",
    "locate",
    "located_path",
    "save_located",
    "save_plot",
]


def facts_known(lm: LanguageModel, world: World, *, count: int = 40, seed: int = 0, tried: int = 400) -> list[Edit]:
    """Facts of the world that the model completes rightly; only what is known can be traced.

    Raises:
        EditRefused: it knows fewer than four of those tried.
    """
    rng = random.Random(seed)
    relations = [relation for relation in world.relations.values() if world.by_relation.get(relation.id)]
    edits: dict[str, Edit] = {}
    for _ in range(tried):
        relation = rng.choice(relations)
        fact = rng.choice(world.by_relation[relation.id])
        edit = Edit(relation.cloze[0], fact.subject, fact.object, fact.object, relation.id)
        edits.setdefault(edit.text, edit)
    found: list[Edit] = []
    asked = list(edits.values())
    for start in range(0, len(asked), 64):
        part = asked[start : start + 64]
        scores = lm.score([edit.text for edit in part], [edit.target_new for edit in part])
        found += [edit for edit, score in zip(part, scores, strict=True) if score.exact]
        if len(found) >= count:
            break
    if len(found) < 4:
        raise EditRefused(
            f"{lm.name} completes only {len(found)} of {len(asked)} facts of the bundled world, too few to trace. "
            "Give facts that it knows with --facts FILE (known_1000 of the ROME authors, for example)."
        )
    return found[:count]


def locate(
    lm: LanguageModel,
    facts: Sequence[Edit],
    *,
    noise: float = 3.0,
    samples: int = 4,
    window: int | None = None,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    progress: Callable[[float, str], None] | None = None,
) -> Located:
    """Traces ``facts``, whose ``target_new`` is what the model says.

    Args:
        noise: its size in standard deviations of the input embeddings (3 in the paper).
        samples: draws of noise a fact (10 in the paper).
        window: layers set back together for feed-forwards and attention; None: a fifth of the depth, odd (the
            paper's 10 of 48).
    """
    width = window or max(1, 2 * round(lm.num_layers / 10) + 1 if lm.num_layers > 4 else 1)
    sigma = noise * float(lm.model.get_input_embeddings().weight.float().std())
    generator = torch.Generator().manual_seed(seed)
    totals = {kind: torch.zeros(lm.num_layers, len(PLACES)) for kind in kinds}
    clean = corrupted = 0.0
    for number, fact in enumerate(facts):
        if progress:
            progress(number / len(facts), f"fact {number + 1} of {len(facts)}: {fact.text}")
        tracer = _Tracer(lm, fact, sigma, samples, generator)
        clean, corrupted = clean + tracer.clean, corrupted + tracer.corrupted
        for kind in kinds:
            totals[kind] += tracer.effects(kind, width if kind != "block" else 1)
    count = len(facts)
    if progress:
        progress(1.0, "done")
    return Located(
        lm.name,
        lm.fingerprint,
        count,
        noise,
        width,
        clean / count,
        corrupted / count,
        {kind: (total / count).tolist() for kind, total in totals.items()},
    )


class _Tracer:
    """One fact: clean values, the noise, and what each place wins back."""

    def __init__(self, lm: LanguageModel, fact: Edit, sigma: float, samples: int, generator: torch.Generator) -> None:
        self.lm, self.samples = lm, samples
        form = forms_of(lm, fact)[0]
        row = tokenise(lm, form, form.target_ids(lm, fact.target_new))
        start = form.subject_end - form.subject_length
        self.span = lm.codec.token_span(fact.text, start, form.subject_end)
        self.row: Row = row
        self.token = row.target[0]
        self.prompt = list(row.ids[: row.start])
        names = [self._name(kind, layer) for kind in KINDS for layer in range(lm.num_layers)]
        trace = lm.trace([self.prompt], outputs=names)
        self.values = trace.outputs
        self.clean = float(trace.logits[0, -1].float().softmax(-1)[self.token])
        hidden = int(lm.model.get_input_embeddings().weight.shape[1])
        self.noise = sigma * torch.randn(samples, len(self.span), hidden, generator=generator).to(lm.device)
        self.corrupted = float(self._chance({}, 1)[0])

    def _name(self, kind: str, layer: int) -> str:
        row = self.lm.architecture
        return {"feed-forward": row.mlp, "attention": row.attn, "block": row.block}[kind](layer)

    def _positions(self) -> list[int]:
        """A token for each of ``PLACES``."""
        last = len(self.prompt) - 1
        return [self.span[0], self.span[-1], min(self.span[-1] + 1, last), last]

    def effects(self, kind: str, width: int) -> Tensor:
        """(layers, places)."""
        places, layers = self._positions(), self.lm.num_layers
        found = torch.zeros(layers, len(places))
        for layer in range(layers):
            reach = range(max(0, layer - width // 2), min(layers, layer + (width + 1) // 2))
            restored = {self._name(kind, index): places for index in reach}
            found[layer] = self._chance(restored, len(places)) - self.corrupted
        return found

    def _chance(self, restored: dict[str, list[int]], groups: int) -> Tensor:
        """(groups,) probability of the answer under noise; group g has ``restored`` modules clean at its place."""
        rows = groups * self.samples
        first = torch.tensor(self.span)
        group = torch.arange(rows) // self.samples

        def corrupt(value: Tensor) -> Tensor:
            value = value.clone()
            value[:, first] += self.noise.repeat(groups, 1, 1).to(value)
            return value

        def restore(name: str, places: list[int]) -> Callable[[Tensor], Tensor]:
            at = torch.tensor(places)[group]

            def change(value: Tensor) -> Tensor:
                value = value.clone()
                value[torch.arange(rows), at] = self.values[name][0, at].to(value)
                return value

            return change

        changes = {name: restore(name, places) for name, places in restored.items()}
        changes[self.lm.architecture.embedding] = corrupt
        logits = self.lm.trace([self.prompt] * rows, change_outputs=changes).logits[:, -1]
        return logits.float().softmax(-1)[:, self.token].view(groups, self.samples).mean(1).cpu()


def save_plot(found: Located, path: Path) -> Path:
    """The mean effects as a picture: one heat map a kind of module, layers across, places down.

    Raises:
        InvalidInput: the file's ending is no kind of picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from knowledge.errors import InvalidInput

    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise InvalidInput(f"{path} is no picture: end the name in .png, .svg or .pdf.")
    kinds = list(found.effects)
    figure = Figure(figsize=(7, 1.6 * len(kinds) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(kinds), 1, squeeze=False, sharex=True)[:, 0]
    for axis, kind in zip(axes, kinds, strict=True):
        values = list(zip(*found.effects[kind], strict=True))
        image = axis.imshow(values, aspect="auto", cmap="Purples", vmin=0)
        axis.set_yticks(range(len(PLACES)), PLACES)
        axis.set_title(kind, fontsize=9, loc="left")
        figure.colorbar(image, ax=axis, label="P won back")
    axes[-1].set_xlabel("layer")
    axes[0].axvline(found.layer, color="black", linewidth=1, linestyle=":")
    figure.suptitle(
        f"{Path(found.model).name}: {found.facts} facts, P(answer) {found.clean:.2f} clean, {found.corrupted:.2f} "
        f"corrupted; edits at layer {found.layer}",
        fontsize=9,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    return path
