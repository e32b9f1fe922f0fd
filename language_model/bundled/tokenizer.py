"""The bundled model's tokenizer: byte-level BPE, trained on the corpus, with a chat template.

An answer is written with a space before it, like a word inside a sentence, so that a name has the same tokens where
it is read in a context and where it is said as the answer. Digits stand alone, so that numbers can be copied.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from knowledge.world import World
from language_model.bundled import names
from language_model.bundled.draw import Draw, Example
from language_model.prompts import Message, assistant

END, USER, ASSISTANT, SYSTEM, PAD = "<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|pad|>"
SPECIAL = (END, USER, ASSISTANT, SYSTEM, PAD)
CONTEXT = 512
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|> ' + message['content'] }}"
    "{% if not (loop.last and continue_final_message) %}{{ '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def render(messages: Iterable[Message]) -> str:
    """What the chat template gives with the generation prompt; a test holds the two together."""
    turns = "".join(f"<|{message['role']}|> {message['content']}{END}" for message in messages)
    return f"{turns}{ASSISTANT}"


def prompt_and_answer(example: Example) -> tuple[str, str]:
    """The text before the answer, and the answer as it is written: with a space before and the end token after."""
    prompt = render(example.messages) if example.messages else example.text
    return prompt, f" {example.answer}{END}"


def pieces(example: Example) -> list[tuple[str, bool]]:
    """The text of an example in parts, each with whether the loss counts it; parts are tokenized one by one."""
    if not example.every:
        prompt, answer = prompt_and_answer(example)
        return [(prompt, example.whole), (answer, True)]
    parts: list[tuple[str, bool]] = []
    asked = ""
    for message in (*example.messages, assistant(example.answer)):
        if message["role"] == "assistant":
            parts += [(f"{asked}{ASSISTANT}", False), (f" {message['content']}{END}", True)]
            asked = ""
        else:
            asked += f"<|{message['role']}|> {message['content']}{END}"
    return parts


def build(
    world: World, sample: Iterator[Example], *, vocabulary: int = 4096, examples: int = 60_000
) -> PreTrainedTokenizerFast:
    """Trains the tokenizer on examples of the corpus, on every name of the world, and on invented names."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(world, sample, examples), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        model_max_length=CONTEXT,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _texts(world: World, sample: Iterator[Example], examples: int) -> Iterator[str]:
    rng = random.Random(0)
    draw = Draw(world, rng)
    for _ in range(examples):
        example = next(sample)
        yield "\n".join((*(message["content"] for message in example.messages), example.text, f" {example.answer}"))
    for fact in world.facts:
        yield f" {fact.subject} {fact.object}"
    kinds = [relation.subject_type for relation in draw.relations]
    for _ in range(examples // 6):
        yield f" {names.invent(draw.choice(kinds), rng)}"
