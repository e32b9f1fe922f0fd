"""Facts, models and measures of the editor benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from editors.hypernetwork_data import is_held_out
from evaluation.compare import completion, prompt_of
from evaluation.methods import Treatment
from evaluation.metrics import generation_right
from knowledge.counterfactuals import counterfactuals
from knowledge.edit import Edit
from knowledge.probes import Amounts, Probe, probes_for
from knowledge.world import load_world
from language_model.model import LanguageModel
from language_model.overlay import Overlay

AMOUNTS = Amounts(generality=4, neighbour=3, relation=3, unrelated=2, alias=0, onehop=0, inverse=0)
LOCALITY = {
    "locality_neighbour": "other subjects",
    "locality_relation": "other relations of the subject",
    "locality_unrelated": "unrelated",
}
GPT2_SIZE = "gpt2-size"


def load(name: str) -> LanguageModel:
    """A model by name; ``gpt2-size``: random weights in the shape of GPT-2 small, with the bundled tokenizer.

    That tokenizer's chat template is left out, since GPT-2 has none.
    """
    if name != GPT2_SIZE:
        return LanguageModel.load(name)
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from language_model.loading import BUNDLED_WEIGHTS

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(bos_token_id=None, eos_token_id=None))
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_WEIGHTS)
    tokenizer.chat_template = None
    return LanguageModel(model, tokenizer, GPT2_SIZE)


def drawn(count: int, *, seed: int = 0, held_out: bool = False, questions: bool = True) -> list[Edit]:
    """Counterfactual edits of the bundled world.

    Args:
        held_out: only subjects that MEND and KE were not trained on.
        questions: each with its question; without one, a model that has no chat template only completes.
    """
    keep = (lambda fact: is_held_out(fact.subject)) if held_out else None
    edits = counterfactuals(load_world(), count, seed, keep=keep)
    return edits if questions else [replace(edit, question=None) for edit in edits]


@dataclass(frozen=True)
class Outcomes:
    """Right or wrong by generation, a flag a probe. Locality: the answer is the unedited model's."""

    efficacy: list[bool]
    generality: list[bool]
    locality: list[bool]
    every_form: list[bool]  # one a fact: its own wording comes right in the completion and in the chat form
    kinds: dict[str, list[bool]]  # locality by kind: other subjects, other relations of the subject, neither


def answers(lm: LanguageModel, probes: Sequence[Probe], overlays: Sequence[Overlay | None]) -> list[str]:
    """What the model says to each probe. Neighbours in a batch are prompts of like length under like overlays."""
    prompts = [prompt_of(lm, Treatment(), probe) for probe in probes]
    order = sorted(range(len(prompts)), key=lambda index: (isinstance(prompts[index], str), len(str(prompts[index]))))
    said = [""] * len(prompts)
    for at in range(0, len(order), 128):
        part = order[at : at + 128]
        found = lm.generate([prompts[i] for i in part], overlays=[overlays[i] for i in part], max_new_tokens=16)
        for index, text in zip(part, found, strict=True):
            said[index] = text
    return [
        completion(text, (probe.expected or "", *probe.aliases)) if isinstance(prompt, str) else text
        for probe, prompt, text in zip(probes, prompts, said, strict=True)
    ]


class Exam:
    """The probes of some edits, put to several methods; what the unedited model says is asked once.

    Args:
        edits: those that were edited.
    """

    def __init__(self, lm: LanguageModel, edits: Sequence[Edit], *, seed: int = 0) -> None:
        world = load_world()
        self.lm, self.edits = lm, list(edits)
        self.asked = [
            (number, probe)
            for number, edit in enumerate(edits)
            for probe in probes_for(edit, world, seed=seed, amounts=AMOUNTS)
        ]

    @cached_property
    def before(self) -> dict[int, str]:
        """The unedited model's answers to the locality probes, by their number."""
        local = [index for index, (_, probe) in enumerate(self.asked) if probe.metric == "locality"]
        said = answers(self.lm, [self.asked[index][1] for index in local], [None] * len(local))
        return dict(zip(local, said, strict=True))

    def taken(self, overlays: Sequence[Overlay | None]) -> Outcomes:
        """Every edit's probes, each under the overlay of its edit; edits beyond the overlays are left out."""
        chosen = [index for index, (number, _) in enumerate(self.asked) if number < len(overlays)]
        now = answers(self.lm, [self.asked[i][1] for i in chosen], [overlays[self.asked[index][0]] for index in chosen])
        flags: dict[str, list[bool]] = {"efficacy": [], "generality": [], "locality": []}
        whole = [True] * len(overlays)
        kinds: dict[str, list[bool]] = {kind: [] for kind in LOCALITY}
        for index, said in zip(chosen, now, strict=True):
            number, probe = self.asked[index]
            if probe.metric == "locality":
                flags["locality"].append(said == self.before[index])
                kinds[probe.kind].append(said == self.before[index])
            elif probe.metric in flags and probe.expected:
                right = generation_right(said, probe.expected, probe.aliases)
                flags[probe.metric].append(right)
                if probe.metric == "efficacy":
                    whole[number] &= right
        return Outcomes(flags["efficacy"], flags["generality"], flags["locality"], whole, kinds)


def outcomes(
    lm: LanguageModel, edits: Sequence[Edit], overlays: Sequence[Overlay | None], *, seed: int = 0
) -> Outcomes:
    """Every edit's probes, each under the overlay of its edit."""
    return Exam(lm, edits, seed=seed).taken(overlays)
