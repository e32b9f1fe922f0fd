"""Trains the bundled model: ``python -m app train bundled``.

bf16 compute with float32 master weights, rows of similar length batched together so that hardly anything is padding,
a learning rate that is constant and then falls to zero. Matrices move by Muon (a step with orthogonalised momentum),
which learns rare facts in fewer tokens than AdamW; embeddings and vectors move by AdamW.

The loss counts the answers only, and beside them two readings of middle layers by linear maps that are not part of the
model. Behind each fact in context one says whether the fact answers the question: one answer says little about eight
facts, eight judgements say which to believe. Behind questions of one relation and behind facts the other, a layer
earlier, names the relation: what a question asks and what a fact tells are then the same direction, which one attention
head can compare.

Everything needed to go on after an interruption lies in the run folder; starting again with the same folder resumes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
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
from language_model.bundled.draw import Draw, Example
from language_model.bundled.rows import UNMARKED, Batch, Row, RowMaker

log = logging.getLogger(__name__)
WEIGHTS = Path(__file__).parent / "weights"


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


# weights of judging the stated facts and of naming relations beside the answers: all are sums over tokens, of which
# facts have more than answers
JUDGING = 0.4
RELATING = 0.1


def _digest(numbers: dict[str, int]) -> str:
    """Stands for relations and their order."""
    return hashlib.sha256("\n".join(numbers).encode()).hexdigest()[:16]


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
        self.maker = RowMaker(self.tokenizer, self.world, self.device)
        self.judge = nn.Linear(self.preset.width, 1, device=self.device)
        self.relate = nn.Linear(self.preset.width, len(self.maker.numbers), device=self.device)
        self.parameters = [*self.model.parameters(), *self.judge.parameters(), *self.relate.parameters()]
        self.master = [parameter.detach().float().clone() for parameter in self.parameters]
        self.model.to(torch.bfloat16)
        self.judge.to(torch.bfloat16)
        self.relate.to(torch.bfloat16)
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
        own = self.master[: len(names)]  # behind them stand the two maps'
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
        known = _digest(self.maker.numbers)
        mine = [{id(m) for group in o.param_groups for m in group["params"]} for o in self.optimizers]
        for index, master in enumerate(self.master):
            if saved.get(f"master.{index}", torch.empty(0)).shape != master.shape or numbers.get("relations") != known:
                raise InvalidInput(
                    f"The training in {self.folder} was begun with another version of the program or other relations "
                    f"and cannot go on. "
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
        losses: list[tuple[float, ...]] = []
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
        losses: list[tuple[float, ...]],
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
                    **{
                        name: round(sum(values) / len(losses), 4)
                        for name, values in zip(("loss", "judging", "relating"), zip(*losses, strict=True), strict=True)
                    },
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

    def _step(self, batches: Iterator[Batch]) -> tuple[float, ...]:
        """One step of the optimisers; the losses of :meth:`_loss`, each a token that it counts."""
        read = 0
        totals, counted = [0.0] * 3, [0] * 3
        for parameter in self.parameters:
            parameter.grad = None
        while read < self.preset.step_tokens:
            batch = next(batches)
            losses = self._loss(batch)
            # summed over tokens; the scale only keeps bf16 gradients in a comfortable range
            ((losses[0] + JUDGING * losses[1] + RELATING * losses[2]) / 1000.0).backward()
            read += int((batch.ids != self.tokenizer.pad_token_id).sum())
            of = (batch.counts[:, 1:], batch.applies != UNMARKED, batch.relates != UNMARKED)
            for index, (loss, marked) in enumerate(zip(losses, of, strict=True)):
                totals[index] += float(loss.detach())
                counted[index] += int(marked.sum())
        for master, parameter in zip(self.master, self.parameters, strict=True):
            master.grad = parameter.grad.float().mul_(1000.0 / counted[0]) if parameter.grad is not None else None
        nn.utils.clip_grad_norm_(self.master, 1.0)
        share = self._schedule()
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * share
            optimizer.step()
        self._publish()
        self.step += 1
        self.tokens += read
        return tuple(total / max(tokens, 1) for total, tokens in zip(totals, counted, strict=True))

    @torch.no_grad()
    def _publish(self) -> None:
        for master, parameter in zip(self.master, self.parameters, strict=True):
            parameter.copy_(master)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropy of the answers' tokens, of judging the stated facts, of naming relations, each summed."""
        wanted = batch.counts[:, 1:]
        output = self.body(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
        logits = self.model.lm_head(output.last_hidden_state[:, :-1][wanted]).float()
        loss = nn.functional.cross_entropy(logits, batch.ids[:, 1:][wanted], reduction="sum")
        judged, related = batch.applies != UNMARKED, batch.relates != UNMARKED
        verdicts = self.judge(output.hidden_states[self.preset.layers - 2][judged]).float().squeeze(-1)
        truth = batch.applies[judged].float()
        judging = nn.functional.binary_cross_entropy_with_logits(verdicts, truth, reduction="sum")
        named = self.relate(output.hidden_states[max(self.preset.layers - 3, 1)][related]).float()
        relating = nn.functional.cross_entropy(named, batch.relates[related].long(), reduction="sum")
        return loss, judging, relating

    def _warm_up(self) -> None:
        """Compiles on many short rows: the compiler shapes its loops after the first batch it sees."""
        log.info("compiling; this takes half a minute")
        ids = torch.randint(10, 100, (self.preset.micro_tokens // 24, 24), device=self.device)
        batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros_like(ids), torch.zeros_like(ids))
        sum(self._loss(batch), torch.zeros((), device=self.device)).backward()

    # ------------------------------------------------------------------------------------------------------ data

    def _batches(self, pool: int = 3000) -> Iterator[Batch]:
        corpus = Corpus(self.world, seed=self.seed + 1000 + self.step)
        shuffle = random.Random(self.step)
        while True:
            rows = self.maker.rows([corpus.sample(self.progress) for _ in range(pool)])
            rows.sort(key=lambda row: len(row.ids))
            groups: list[list[Row]] = [[]]
            for row in rows:
                if len(groups[-1]) and (len(groups[-1]) + 1) * len(row.ids) > self.preset.micro_tokens:
                    groups.append([])
                groups[-1].append(row)
            shuffle.shuffle(groups)
            for group in groups:
                yield self.maker.batch(group)

    # ------------------------------------------------------------------------------------------ looking and saving

    @torch.no_grad()
    def check(self, count: int = 64) -> dict[str, float]:
        """Share of exact answers on unseen wordings: greedy decoding gives the answer iff every token is the argmax."""
        figures: dict[str, float] = {}
        for name, skill in CHECKS.items():
            draw = Draw(self.world, random.Random(99), unseen=True)
            rows = self.maker.rows([skill(draw) for _ in range(count)])
            right = 0
            for start in range(0, len(rows), 16):
                batch = self.maker.batch(rows[start : start + 16])
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
        known = {"relations": _digest(self.maker.numbers), "preset": {"name": self.name, **asdict(self.preset)}}
        state_now = {**counters, **known}
        (self.folder / "state.json").write_text(json.dumps(state_now, indent=1))
        self.model.save_pretrained(str(self.folder / "model"))
        self.tokenizer.save_pretrained(str(self.folder / "model"))
