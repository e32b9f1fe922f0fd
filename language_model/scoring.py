"""How probable a model finds given answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from language_model.batch import chunks, pad
from language_model.errors import PromptTooLong
from language_model.overlay import Overlay
from language_model.text import Prompt

if TYPE_CHECKING:
    from language_model.model import LanguageModel

_LOGITS = 2**27  # logits of one pass, as a number of elements: half a gigabyte in float32


@dataclass(frozen=True, slots=True)
class TargetScore:
    """Natural-log probabilities of one target after one prompt.

    Attributes:
        token_logprobs: of each token given the prompt and the tokens before it.
        argmax_hits: whether each token is the most probable one there; all true means that greedy decoding writes
            exactly these tokens.
    """

    token_logprobs: tuple[float, ...]
    argmax_hits: tuple[bool, ...]

    @property
    def sum_logprob(self) -> float:
        return sum(self.token_logprobs)

    @property
    def mean_logprob(self) -> float:
        return self.sum_logprob / len(self.token_logprobs)

    @property
    def exact(self) -> bool:
        return all(self.argmax_hits)


def score_targets(
    lm: LanguageModel, prompts: Sequence[Prompt], targets: Sequence[str], overlays: Sequence[Overlay | None]
) -> list[TargetScore]:
    """One score a row; rows are batched by length and come back in order.

    Raises:
        PromptTooLong: prompt and target do not fit into the context.
    """
    heads = [lm.codec.encode(prompt) for prompt in prompts]
    tails = [lm.target_ids_after(prompt, target) for prompt, target in zip(prompts, targets, strict=True)]
    lengths = [len(head) + len(tail) for head, tail in zip(heads, tails, strict=True)]
    if max(lengths, default=0) > lm.context:
        raise PromptTooLong(max(lengths), lm.context)
    scores: dict[int, TargetScore] = {}
    limit = max(1, _LOGITS // lm.vocab_size)
    for group in chunks(lengths, tokens=min(limit, 16384), rows=256):
        batch = pad(
            [heads[i] + tails[i] for i in group],
            pad_id=lm.pad_id,
            device=lm.device,
            prompt_lengths=[len(heads[i]) for i in group],
        )
        with torch.no_grad():
            logits = lm.forward(batch, overlays=[overlays[i] for i in group])
        for row, i in enumerate(group):
            # The logits at a position say what comes next, so the target is read one position earlier.
            span = logits[row, len(heads[i]) - 1 : lengths[i] - 1].float()  # (target, vocabulary)
            wanted = torch.tensor(tails[i], device=span.device)
            logprobs = span.log_softmax(dim=-1).gather(1, wanted[:, None])[:, 0]
            hits = span.argmax(dim=-1) == wanted
            scores[i] = TargetScore(tuple(logprobs.tolist()), tuple(bool(hit) for hit in hits.tolist()))
    return [scores[i] for i in range(len(prompts))]
