"""Trains the bundled model: ``python -m app train bundled``.

bf16 compute with float32 master weights, rows of similar length batched together so that hardly anything is padding,
loss on the answers only, a learning rate that is constant and then falls to zero. Everything needed to go on after an
interruption lies in the run folder; starting again with the same folder resumes.
"""

from __future__ import annotations

import json
import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from knowledge.errors import InvalidInput
from knowledge.world import World, load_world
from language_model.bundled import chains, context, recall, tokenizer
from language_model.bundled.corpus import Corpus
from language_model.bundled.draw import Draw, Example

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
    learning_rate: float
    warmup_steps: int = 200
    decay_share: float = 0.35  # the last part of the training, in which the learning rate falls to zero
    weight_decay: float = 0.05


PRESETS = {
    # 2 cores with AMX or AVX-512: 8 layers are enough for lookup, copying and comparing; about 11 M parameters
    "cpu": Preset(8, 320, 10, 4096, tokens=17_000_000, step_tokens=8_000, micro_tokens=5_000, learning_rate=1.5e-3),
    # one GPU: about 34 M parameters, still within 64 MiB as bf16 once the embedding is counted once
    "gpu": Preset(10, 512, 8, 6144, tokens=600_000_000, step_tokens=64_000, micro_tokens=64_000, learning_rate=1e-3),
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
}


class Trainer:
    """One training in one folder.

    Args:
        folder: where checkpoints, tokenizer and log go; an earlier checkpoint there is continued.
        preset: a key of ``PRESETS``.
        minutes: let the clock instead of the preset's token count say when the training ends.
        start_from: a folder with weights to begin with (same preset), instead of random ones.
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
    ) -> None:
        if preset not in PRESETS:
            raise InvalidInput(f"There is no preset {preset!r} of the bundled model. Available: {', '.join(PRESETS)}.")
        self.folder, self.name, self.preset, self.minutes, self.seed = folder, preset, PRESETS[preset], minutes, seed
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.world: World = load_world()
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = self._tokenizer(start_from)
        torch.manual_seed(seed)
        self.model = self._model(start_from)
        self.master = [parameter.detach().float().clone() for parameter in self.model.parameters()]
        self.model.to(torch.bfloat16)
        decay = [master for master in self.master if master.dim() > 1]
        rest = [master for master in self.master if master.dim() <= 1]
        groups = [{"params": decay, "weight_decay": self.preset.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-8, fused=True)
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self._resume()
        # compiled, the element-wise work between the products is fused: a third faster on 2 cores
        self.body: Any = torch.compile(self.model.transformer, dynamic=True)
        self._warm_up()

    # ------------------------------------------------------------------------------------------------- beginning

    def _tokenizer(self, start_from: Path | None) -> PreTrainedTokenizerFast:
        for folder in (self.folder, start_from):
            if folder is not None and (folder / "tokenizer.json").exists():
                loaded: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(str(folder))
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
        return model.to(self.device)

    def _resume(self) -> None:
        state = self.folder / "state.json"
        if not state.exists():
            return
        numbers = json.loads(state.read_text())
        self.step, self.tokens, self.seconds = numbers["step"], numbers["tokens"], numbers["seconds"]
        saved = load_file(self.folder / "checkpoint.safetensors", device=str(self.device))
        for index, master in enumerate(self.master):
            master.copy_(saved[f"master.{index}"])
            self.optimizer.state[master] = {
                "step": torch.tensor(float(self.step), device=self.device if self.device.type == "cuda" else "cpu"),
                "exp_avg": saved[f"first.{index}"],
                "exp_avg_sq": saved[f"second.{index}"],
            }
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
        """Trains to the end; interrupt at will and run again."""
        batches = self._batches()
        losses: list[float] = []
        last_saved = started = time.perf_counter()
        while self.progress < 1.0:
            began = time.perf_counter()
            losses.append(self._step(batches))
            self.seconds += time.perf_counter() - began
            if self.step % 20 == 0:
                entry: dict[str, Any] = {
                    "step": self.step,
                    "tokens": self.tokens,
                    "seconds": round(self.seconds),
                    "loss": round(sum(losses) / len(losses), 4),
                    "learning_rate": round(self._rate(), 6),
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
        self.save()
        self._log(
            {"step": self.step, "tokens": self.tokens, "seconds": round(self.seconds), "held_out": self.check(200)}
        )
        log.info("done after %.0f s", time.perf_counter() - started)

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / self.preset.warmup_steps)
        fall = min(1.0, (1.0 - self.progress) / self.preset.decay_share)
        return self.preset.learning_rate * warm * fall

    def _step(self, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
        read, total, count = 0, 0.0, 0
        for parameter in self.model.parameters():
            parameter.grad = None
        while read < self.preset.step_tokens:
            ids, wanted = next(batches)
            loss, answers = self._loss(ids, wanted)
            (loss / 1000.0).backward()  # summed over tokens; the scale only keeps bf16 gradients in a comfortable range
            read, total, count = (
                read + int((ids != self.tokenizer.pad_token_id).sum()),
                total + float(loss.detach()),
                count + answers,
            )
        for master, parameter in zip(self.master, self.model.parameters(), strict=True):
            master.grad = parameter.grad.float().mul_(1000.0 / count) if parameter.grad is not None else None
        nn.utils.clip_grad_norm_(self.master, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.optimizer.step()
        self._publish()
        self.step += 1
        self.tokens += read
        return total / max(count, 1)

    @torch.no_grad()
    def _publish(self) -> None:
        for master, parameter in zip(self.master, self.model.parameters(), strict=True):
            parameter.copy_(master)

    def _loss(self, ids: Tensor, wanted: Tensor) -> tuple[Tensor, int]:
        hidden = self.body(input_ids=ids, use_cache=False).last_hidden_state
        logits = self.model.lm_head(hidden[:, :-1][wanted[:, 1:]]).float()
        return nn.functional.cross_entropy(logits, ids[:, 1:][wanted[:, 1:]], reduction="sum"), int(wanted[:, 1:].sum())

    def _warm_up(self) -> None:
        """Compiles on many short rows: the compiler shapes its loops after the first batch it sees."""
        log.info("compiling; this takes half a minute")
        ids = torch.randint(10, 100, (self.preset.micro_tokens // 24, 24), device=self.device)
        self._loss(ids, torch.ones_like(ids, dtype=torch.bool))[0].backward()

    # ------------------------------------------------------------------------------------------------------ data

    def _encode(self, examples: list[Example]) -> list[tuple[list[int], int]]:
        """Token ids and the index of the first one that counts, a pair an example; too long ones are left out."""
        texts = [tokenizer.prompt_and_answer(example) for example in examples]
        encoder = self.tokenizer.backend_tokenizer
        prompts = encoder.encode_batch([prompt for prompt, _ in texts], add_special_tokens=False)
        answers = encoder.encode_batch([answer for _, answer in texts], add_special_tokens=False)
        rows = []
        for example, encoded, answer in zip(examples, prompts, answers, strict=True):
            prompt, ids = encoded.ids, [*encoded.ids, *answer.ids]
            if len(ids) <= tokenizer.CONTEXT:
                rows.append((ids, 0 if example.whole else len(prompt)))
        return rows

    def _batches(self, pool: int = 3000) -> Iterator[tuple[Tensor, Tensor]]:
        corpus = Corpus(self.world, seed=self.seed + 1000 + self.step)
        shuffle = random.Random(self.step)
        while True:
            rows = self._encode([corpus.sample(self.progress) for _ in range(pool)])
            rows.sort(key=lambda row: len(row[0]))
            groups: list[list[tuple[list[int], int]]] = [[]]
            for row in rows:
                if len(groups[-1]) and (len(groups[-1]) + 1) * len(row[0]) > self.preset.micro_tokens:
                    groups.append([])
                groups[-1].append(row)
            shuffle.shuffle(groups)
            for group in groups:
                yield self._tensors(group)

    def _tensors(self, group: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor]:
        longest = math.ceil(max(len(ids) for ids, _ in group) / 8) * 8
        ids = torch.full((len(group), longest), int(self.tokenizer.pad_token_id), dtype=torch.long)
        wanted = torch.zeros((len(group), longest), dtype=torch.bool)
        for index, (row, first) in enumerate(group):
            ids[index, : len(row)] = torch.tensor(row)
            wanted[index, first : len(row)] = True
        return ids.to(self.device), wanted.to(self.device)

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
                ids, wanted = self._tensors([(row, first) for row, first in rows[start : start + 16]])
                logits = self.model(input_ids=ids, use_cache=False).logits[:, :-1]
                hit = (logits.argmax(-1) == ids[:, 1:]) | ~wanted[:, 1:]
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
            state = self.optimizer.state.get(master)
            tensors[f"master.{index}"] = master
            tensors[f"first.{index}"] = state["exp_avg"] if state else torch.zeros_like(master)
            tensors[f"second.{index}"] = state["exp_avg_sq"] if state else torch.zeros_like(master)
        save_file(tensors, self.folder / "checkpoint.tmp")
        (self.folder / "checkpoint.tmp").replace(self.folder / "checkpoint.safetensors")
        counters = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        state_now = {**counters, "preset": {"name": self.name, **asdict(self.preset)}}
        (self.folder / "state.json").write_text(json.dumps(state_now, indent=1))
        self.model.save_pretrained(str(self.folder / "model"))
        self.tokenizer.save_pretrained(str(self.folder / "model"))
