"""Trains the bundled model: ``python -m app train bundled``.

bf16 compute with float32 master weights, rows of similar length batched together so that hardly anything is padding,
a learning rate that is constant and then falls to zero. Matrices move by Muon (a step with orthogonalised momentum),
which learns rare facts in fewer tokens than AdamW; embeddings and vectors move by AdamW.

The loss counts the answers only, and beside them a judgement: behind each fact in context a linear map of a middle
layer says whether the fact answers the question. One answer says little about eight facts; eight judgements say which
to believe. The map is not part of the model.

Everything needed to go on after an interruption lies in the run folder; starting again with the same folder resumes.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from knowledge.errors import InvalidInput
from knowledge.world import World, load_world
from language_model.bundled import chains, context, copying, recall, tokenizer
from language_model.bundled.corpus import Corpus
from language_model.bundled.draw import Draw, Example, Stated

log = logging.getLogger(__name__)
WEIGHTS = Path(__file__).parent / "weights"
UNJUDGED = -1


@dataclass(frozen=True, slots=True)
class Row:
    """One example as tokens, all lists of one length."""

    ids: list[int]
    counts: list[bool]  # which tokens the loss counts
    applies: list[int]  # at tokens of a stated fact: 1 where it answers the question before it, 0 where not; else -1


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded to one length, (rows, tokens) each."""

    ids: Tensor
    counts: Tensor
    applies: Tensor


@dataclass(frozen=True, slots=True)
class Preset:
    """Architecture and schedule of one training."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    tokens: int  # length of the training, in tokens read
    step_tokens: int  # tokens a step of the optimiser
    micro_tokens: int  # tokens a forward pass, padding included
    learning_rate: float  # of the vectors and embeddings (AdamW)
    matrix_rate: float  # of the matrices (Muon, scaled to AdamW's step size)
    warmup_steps: int = 100
    decay_share: float = 0.55  # the last part of the training, in which the learning rate falls to zero
    weight_decay: float = 0.05


PRESETS = {
    # 2 cores with AMX or AVX-512: 6 layers are enough for lookup, copying and comparing; 8.9 M parameters
    "cpu": Preset(
        6,
        320,
        10,
        4096,
        tokens=37_000_000,
        step_tokens=8_000,
        micro_tokens=2_500,
        learning_rate=1.5e-3,
        matrix_rate=2e-3,
    ),
    # one GPU: about 34 M parameters, still within 64 MiB as bf16 once the embedding is counted once
    "gpu": Preset(
        10,
        512,
        8,
        6144,
        tokens=600_000_000,
        step_tokens=64_000,
        micro_tokens=64_000,
        learning_rate=1e-3,
        matrix_rate=1.5e-3,
    ),
}
# what is looked at while training, teacher-forced, on wordings never trained on
CHECKS: dict[str, Callable[[Draw], Example]] = {
    "recall": recall.chat_question,
    "completion": recall.completion,
    "unknown": recall.unknown,
    "composite": recall.composite,
    "override": context.override,
    "retain relation": lambda draw: context.retain(draw, "relation"),
    "retain subject": lambda draw: context.retain(draw, "subject"),
    "compare": context.compare,
    "step": chains.step,
    "look-up": copying.look_up,
}


# weight of judging the stated facts beside the answers: both are sums over tokens, of which the facts have more
JUDGING = 0.25


def _judged(text: str, offsets: Sequence[tuple[int, int]], facts: Sequence[Stated]) -> list[int]:
    """At each token (its characters in ``text``) what :class:`Row` says of it."""
    marks = [UNJUDGED] * len(offsets)
    at = len(text)
    for fact in reversed(facts):  # from the end: demonstrations may hold the same line
        at = text.rfind(f"New fact: {fact.text}\n", 0, at)
        if at < 0:
            break
        begin = at + len("New fact: ")
        for index, (_, end) in enumerate(offsets):
            if begin + fact.tells_from < end <= begin + len(fact.text) + 1:
                marks[index] = int(fact.applies)
    return marks


def _sinusoids(positions: int, width: int) -> Tensor:
    """Position embeddings to begin with: neighbouring positions are alike, so that "the token before" is soon found."""
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(1000.0) / width))
    angle = torch.arange(positions).unsqueeze(1) * frequency
    return 0.02 * math.sqrt(2.0) * torch.cat([angle.sin(), angle.cos()], dim=1)


class Trainer:
    """One training in one folder.

    Args:
        folder: where checkpoints, tokenizer and log go; an earlier checkpoint there is continued.
        preset: a key of ``PRESETS``.
        minutes: let the clock instead of the preset's token count say when the training ends.
        start_from: a folder with weights to begin with (same preset), instead of random ones. What they know would
            be forgotten at the full rate, so the rates begin at half and fall all the way.
        compiled: fuse the element-wise work between the products: a third faster, half a minute to begin with.
    """

    def __init__(
        self,
        folder: Path,
        preset: str = "cpu",
        *,
        minutes: float | None = None,
        seed: int = 0,
        device: str | None = None,
        start_from: Path | None = None,
        compiled: bool = True,
    ) -> None:
        if preset not in PRESETS:
            raise InvalidInput(f"There is no preset {preset!r} of the bundled model. Available: {', '.join(PRESETS)}.")
        self.folder, self.name, self.preset, self.minutes, self.seed = folder, preset, PRESETS[preset], minutes, seed
        if start_from is not None:
            self.preset = replace(
                self.preset,
                learning_rate=self.preset.learning_rate / 2,
                matrix_rate=self.preset.matrix_rate / 2,
                decay_share=1.0,
            )
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.world: World = load_world()
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = self._tokenizer(start_from)
        torch.manual_seed(seed)
        self.model = self._model(start_from)
        self.judge = nn.Linear(self.preset.width, 1, device=self.device)
        self.parameters = [*self.model.parameters(), *self.judge.parameters()]
        self.master = [parameter.detach().float().clone() for parameter in self.parameters]
        self.model.to(torch.bfloat16)
        self.judge.to(torch.bfloat16)
        self.optimizers = self._optimizers()
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self._resume()
        self.body: Any = self.model.transformer
        if compiled:
            self.body = torch.compile(self.model.transformer, dynamic=True)
            self._warm_up()

    # ------------------------------------------------------------------------------------------------- beginning

    def _tokenizer(self, start_from: Path | None) -> PreTrainedTokenizerFast:
        for folder in (self.folder, start_from):
            if folder is not None and (folder / "tokenizer.json").exists():
                loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(str(folder))
                loaded.chat_template = tokenizer.CHAT_TEMPLATE
                return loaded
        log.info("training the tokenizer")
        built = tokenizer.build(
            self.world, iter(Corpus(self.world, seed=self.seed + 1)), vocabulary=self.preset.vocabulary
        )
        built.save_pretrained(str(self.folder))
        return built

    def _model(self, start_from: Path | None) -> GPT2LMHeadModel:
        end = self.tokenizer.convert_tokens_to_ids(tokenizer.END)
        config = GPT2Config(
            vocab_size=self.preset.vocabulary,
            n_positions=tokenizer.CONTEXT,
            n_embd=self.preset.width,
            n_layer=self.preset.layers,
            n_head=self.preset.heads,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=self.tokenizer.pad_token_id,
            attn_implementation="eager",  # for short rows faster than the fused kernel on a CPU
        )
        model = GPT2LMHeadModel(config)
        if start_from is not None:
            state = {name: tensor.float() for name, tensor in load_file(start_from / "model.safetensors").items()}
            model.load_state_dict(state, strict=False)
            model.tie_weights()
        else:
            with torch.no_grad():
                model.transformer.wpe.weight.copy_(_sinusoids(tokenizer.CONTEXT, self.preset.width))
        return model.to(self.device)

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """Muon for the matrices inside the layers, AdamW for all else; ``base`` is the rate before the schedule."""
        names = [name for name, _ in self.model.named_parameters()]
        own = self.master[: len(names)]  # behind them stand the judge's
        matrices = [m for m, name in zip(own, names, strict=True) if m.dim() == 2 and ".h." in name]
        chosen = {id(master) for master in matrices}
        rest = [master for master in self.master if id(master) not in chosen]
        decay, rate = self.preset.weight_decay, self.preset.learning_rate
        muon = torch.optim.Muon(
            matrices, lr=self.preset.matrix_rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"
        )
        adam = torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.0, fused=True)
        for optimizer in (muon, adam):
            for group in optimizer.param_groups:
                group["base"] = group["lr"]
        return [muon, adam]

    def _state(self, master: Tensor) -> dict[str, Any]:
        """What the optimisers remember of one tensor."""
        return next((o.state[master] for o in self.optimizers if master in o.state), {})

    def _resume(self) -> None:
        state = self.folder / "state.json"
        if not state.exists():
            return
        numbers = json.loads(state.read_text())
        self.step, self.tokens, self.seconds = numbers["step"], numbers["tokens"], numbers["seconds"]
        saved = load_file(self.folder / "checkpoint.safetensors", device=str(self.device))
        mine = [{id(m) for group in o.param_groups for m in group["params"]} for o in self.optimizers]
        for index, master in enumerate(self.master):
            if f"master.{index}" not in saved:
                raise InvalidInput(
                    f"The training in {self.folder} was begun by an earlier version of the program and cannot go on. "
                    f"Start another in a new folder, from its weights: --start-from {self.folder / 'model'}."
                )
            master.copy_(saved.pop(f"master.{index}"))
            optimizer = next(o for o, ids in zip(self.optimizers, mine, strict=True) if id(master) in ids)
            for key in [key for key in saved if key.endswith(f".{index}")]:
                optimizer.state[master][key.rpartition(".")[0]] = saved.pop(key)
        self._publish()
        log.info("resumed at step %d, %.1f M tokens", self.step, self.tokens / 1e6)

    # -------------------------------------------------------------------------------------------------- training

    @property
    def progress(self) -> float:
        """0 at the start, 1 when done."""
        if self.minutes is not None:
            return min(1.0, self.seconds / (60 * self.minutes))
        return min(1.0, self.tokens / self.preset.tokens)

    def run(
        self, *, save_seconds: float = 400.0, on_progress: Callable[[float, dict[str, Any]], None] | None = None
    ) -> None:
        """Trains to the end; interrupt at will (what is done is saved) and run again."""
        batches = self._batches()
        losses: list[tuple[float, float]] = []
        started = time.perf_counter()
        try:
            self._go_on(batches, losses, save_seconds, on_progress)
        except KeyboardInterrupt:
            self.save()
            raise
        self.save()
        self._log(
            {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds), "held_out": self.check(200)}
        )
        log.info("done after %.0f s", time.perf_counter() - started)

    def _go_on(
        self,
        batches: Iterator[Batch],
        losses: list[tuple[float, float]],
        save_seconds: float,
        on_progress: Callable[[float, dict[str, Any]], None] | None,
    ) -> None:
        last_saved = time.perf_counter()
        while self.progress < 1.0:
            began = time.perf_counter()
            losses.append(self._step(batches))
            self.seconds += time.perf_counter() - began
            if self.step % 20 == 0:
                entry: dict[str, Any] = {
                    "step": self.step,
                    "tokens": self.tokens,
                    "seconds": round(self.seconds),
                    "loss": round(sum(loss for loss, _ in losses) / len(losses), 4),
                    "judging": round(sum(judging for _, judging in losses) / len(losses), 4),
                    "rate": round(self._schedule(), 4),
                    "progress": round(self.progress, 4),
                }
                losses.clear()
                if time.perf_counter() - last_saved > save_seconds:
                    entry |= {"held_out": self.check()}
                    self.save()
                    last_saved = time.perf_counter()
                self._log(entry)
                if on_progress is not None:
                    on_progress(self.progress, entry)

    def _schedule(self) -> float:
        """The share of the full learning rate at this step."""
        warm = min(1.0, (self.step + 1) / self.preset.warmup_steps)
        return warm * min(1.0, (1.0 - self.progress) / self.preset.decay_share)

    def _step(self, batches: Iterator[Batch]) -> tuple[float, float]:
        """One step of the optimisers; the losses of the answers and of judging the facts, both a token of an answer."""
        read, total, judged, count = 0, 0.0, 0.0, 0
        for parameter in self.parameters:
            parameter.grad = None
        while read < self.preset.step_tokens:
            batch = next(batches)
            loss, judging = self._loss(batch)
            # summed over tokens; the scale only keeps bf16 gradients in a comfortable range
            ((loss + JUDGING * judging) / 1000.0).backward()
            read += int((batch.ids != self.tokenizer.pad_token_id).sum())
            total, judged = total + float(loss.detach()), judged + float(judging.detach())
            count += int(batch.counts[:, 1:].sum())
        for master, parameter in zip(self.master, self.parameters, strict=True):
            master.grad = parameter.grad.float().mul_(1000.0 / count) if parameter.grad is not None else None
        nn.utils.clip_grad_norm_(self.master, 1.0)
        share = self._schedule()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * share
            optimizer.step()
        self._publish()
        self.step += 1
        self.tokens += read
        return total / max(count, 1), judged / max(count, 1)

    @torch.no_grad()
    def _publish(self) -> None:
        for master, parameter in zip(self.master, self.parameters, strict=True):
            parameter.copy_(master)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the answers' tokens, and that of judging the stated facts, each summed."""
        wanted = batch.counts[:, 1:]
        output = self.body(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
        logits = self.model.lm_head(output.last_hidden_state[:, :-1][wanted]).float()
        loss = nn.functional.cross_entropy(logits, batch.ids[:, 1:][wanted], reduction="sum")
        judged = batch.applies != UNJUDGED
        verdicts = self.judge(output.hidden_states[self.preset.layers - 2][judged]).float().squeeze(-1)
        truth = batch.applies[judged].float()
        return loss, nn.functional.binary_cross_entropy_with_logits(verdicts, truth, reduction="sum")

    def _warm_up(self) -> None:
        """Compiles on many short rows: the compiler shapes its loops after the first batch it sees."""
        log.info("compiling; this takes half a minute")
        ids = torch.randint(10, 100, (self.preset.micro_tokens // 24, 24), device=self.device)
        batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids))
        sum(self._loss(batch), torch.zeros((), device=self.device)).backward()

    # ------------------------------------------------------------------------------------------------------ data

    def _encode(self, examples: list[Example]) -> list[Row]:
        """A row an example; too long ones are left out."""
        pieces = [tokenizer.pieces(example) for example in examples]
        encoded = iter(
            self.tokenizer.backend_tokenizer.encode_batch(
                [text for row in pieces for text, _ in row], add_special_tokens=False
            )
        )
        rows = []
        for example, row in zip(examples, pieces, strict=True):
            ids: list[int] = []
            counts: list[bool] = []
            applies: list[int] = []
            for text, wanted in row:
                tokens = next(encoded)
                first = not ids
                ids += tokens.ids
                counts += [wanted] * len(tokens.ids)
                applies += _judged(text, tokens.offsets, example.facts if first else ())
            if len(ids) <= tokenizer.CONTEXT:
                rows.append(Row(ids, counts, applies))
        return rows

    def _batches(self, pool: int = 3000) -> Iterator[Batch]:
        corpus = Corpus(self.world, seed=self.seed + 1000 + self.step)
        shuffle = random.Random(self.step)
        while True:
            rows = self._encode([corpus.sample(self.progress) for _ in range(pool)])
            rows.sort(key=lambda row: len(row.ids))
            groups: list[list[Row]] = [[]]
            for row in rows:
                if len(groups[-1]) and (len(groups[-1]) + 1) * len(row.ids) > self.preset.micro_tokens:
                    groups.append([])
                groups[-1].append(row)
            shuffle.shuffle(groups)
            for group in groups:
                yield self._tensors(group)

    def _tensors(self, group: list[Row]) -> Batch:
        longest = math.ceil(max(len(row.ids) for row in group) / 8) * 8
        ids = torch.full((len(group), longest), int(self.tokenizer.pad_token_id), dtype=torch.long)
        counts = torch.zeros((len(group), longest), dtype=torch.bool)
        applies = torch.full((len(group), longest), UNJUDGED, dtype=torch.int8)
        for index, row in enumerate(group):
            length = len(row.ids)
            ids[index, :length] = torch.tensor(row.ids)
            counts[index, :length] = torch.tensor(row.counts)
            applies[index, :length] = torch.tensor(row.applies, dtype=torch.int8)
        return Batch(ids.to(self.device), counts.to(self.device), applies.to(self.device))

    # ------------------------------------------------------------------------------------------ looking and saving

    @torch.no_grad()
    def check(self, count: int = 64) -> dict[str, float]:
        """Share of exact answers on unseen wordings: greedy decoding gives the answer iff every token is the argmax."""
        figures: dict[str, float] = {}
        for name, skill in CHECKS.items():
            draw = Draw(self.world, random.Random(99), unseen=True)
            rows = self._encode([skill(draw) for _ in range(count)])
            right = 0
            for start in range(0, len(rows), 16):
                batch = self._tensors(rows[start : start + 16])
                logits = self.model(input_ids=batch.ids, use_cache=False).logits[:, :-1]
                hit = (logits.argmax(-1) == batch.ids[:, 1:]) | ~batch.counts[:, 1:]
                right += int(hit.all(-1).sum())
            figures[name] = round(right / len(rows), 3)
        return figures

    def _log(self, entry: dict[str, Any]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        log.info("%s", entry)

    def save(self) -> None:
        """Writes a checkpoint to go on from, and the model as it is now in the shipped form."""
        tensors: dict[str, Tensor] = {}
        for index, master in enumerate(self.master):
            tensors[f"master.{index}"] = master
            for key, value in self._state(master).items():
                if isinstance(value, Tensor):
                    tensors[f"{key}.{index}"] = value
        save_file(tensors, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").replace(self.folder / "checkpoint.safetensors")
        counters = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        state_now = {**counters, "preset": {"name": self.name, **asdict(self.preset)}}
        (self.folder / "state.json").write_text(json.dumps(state_now, indent=1))
        self.model.save_pretrained(str(self.folder / "model"))
        self.tokenizer.save_pretrained(str(self.folder / "model"))
