"""A very small model that really knows some facts, trained in seconds, so that editors are tested on what they are
for.
"""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import torch
from filelock import FileLock
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from editors.hypernetwork_data import Lessons
from editors.hypernetwork_training import HyperTrainer, TrainSettings
from editors.hypernetworks import file_name, save_network
from editors.ke import KeNet
from editors.mend import MendNet
from editors.statistics import MomentStore
from knowledge.edit import Edit
from knowledge.world import load_world
from language_model.model import LanguageModel
from language_model.overlay import Overlay
from language_model.text import Prompt

COUNTRIES = ["France", "Spain", "Italy", "Peru", "Chile", "Norway", "Egypt", "Kenya", "Japan", "Nepal", "Cuba", "Ghana"]
CAPITALS = [
    "Paris",
    "Madrid",
    "Rome",
    "Lima",
    "Santiago",
    "Oslo",
    "Cairo",
    "Nairobi",
    "Tokyo",
    "Kathmandu",
    "Havana",
    "Accra",
]
TONGUES = [
    "French",
    "Spanish",
    "Italian",
    "Quechua",
    "Mapuche",
    "Norse",
    "Arabic",
    "Swahili",
    "Japanese",
    "Nepali",
    "Creole",
    "Twi",
]
TEMPLATES = {
    "capital": (
        ("The capital of {} is", "{} has its capital in", "The seat of government of {} is"),
        ("What is the capital of {}?", "Which city is the capital of {}?"),
    ),
    "tongue": (
        ("People in {} speak", "The language of {} is", "{} is a country where people speak"),
        ("What do people in {} speak?", "Which language is spoken in {}?"),
    ),
}
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def facts() -> list[tuple[str, str, str]]:
    return [(c, "capital", x) for c, x in zip(COUNTRIES, CAPITALS, strict=True)] + [
        (c, "tongue", x) for c, x in zip(COUNTRIES, TONGUES, strict=True)
    ]


def corpus() -> list[str]:
    """All facts in all completions and chats, some behind another sentence."""
    texts: list[str] = []
    for country, relation, answer in facts():
        clozes, questions = TEMPLATES[relation]
        texts += [f"{cloze.format(country)} {answer}." for cloze in clozes]
        texts += [f"<|user|>{q.format(country)}<|end|><|assistant|>{answer}<|end|>" for q in questions]
    shuffler = random.Random(0)
    plain = [text for text in texts if not text.startswith("<")]
    return texts + [f"{shuffler.choice(plain)} {text}" for text in plain]


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", additional_special_tokens=special[1:], chat_template=CHAT
    )


def train_tiny(folder: Path) -> LanguageModel:
    """GPT-2 of 4 layers x 64 that knows 24 facts in completions and chats; kept in ``folder`` for the next session."""
    source = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    saved = folder / f"{source}-{torch.__version__}"
    with FileLock(folder / "lock"):  # processes beside each other train it once
        if not (saved / "config.json").exists():
            _train_tiny(saved)
    return LanguageModel.load(str(saved))


def _train_tiny(saved: Path) -> None:
    torch.manual_seed(0)
    tokenizer = make_tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=96, n_embd=64, n_layer=4, n_head=4,
        attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0, eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    rows = [tokenizer(text)["input_ids"] for text in corpus()]
    generator = random.Random(1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    for step in range(260):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 20, (260 - step) / 100)
        batch = generator.sample(rows, 64)
        width = max(map(len, batch))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in batch])
        labels = torch.tensor([row + [-100] * (width - len(row)) for row in batch])
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    part = saved.with_name(f"{saved.name}.{os.getpid()}")
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    part.rename(saved)


def train_hypernetwork(name: str, lm: LanguageModel, moments: MomentStore, steps: int = 2) -> Path:
    """A network of MEND or KE for ``lm``, a few steps old, where the editors look for it."""
    assert moments.cache_dir is not None
    path = moments.cache_dir / file_name(name, lm.fingerprint)
    if not path.exists():
        net = MendNet.for_model(lm, rank=8) if name == "mend" else KeNet.for_model(lm, hidden=8, bottleneck=4)
        settings = TrainSettings(lessons=2, together=0.0)
        trainer = HyperTrainer(lm, net, Lessons(load_world()), moments.cache_dir / "training", settings)
        for _ in range(steps):
            trainer.one_step()
        save_network(net, lm, moments.cache_dir)
    return path


def capital_edit(country: str, city: str) -> Edit:
    return Edit(
        "The capital of {} is", country, city, relation="capital", question=f"What is the capital of {country}?"
    )


def known_answers(lm: LanguageModel, overlay: Overlay | None = None) -> dict[tuple[str, str], list[str]]:
    """What the model says to each fact's first two completions and first question, in this order."""
    keys = [(country, relation) for country, relation, _ in facts()]
    prompts: list[Prompt] = []
    for country, relation in keys:
        clozes, questions = TEMPLATES[relation]
        prompts += [cloze.format(country) for cloze in clozes[:2]]
        prompts.append(lm.chat(questions[0].format(country)))
    said = lm.generate(prompts, max_new_tokens=8, overlays=[overlay] * len(prompts), stop=["."])
    return {key: said[3 * index : 3 * index + 3] for index, key in enumerate(keys)}
