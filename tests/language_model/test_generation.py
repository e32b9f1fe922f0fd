"""Generation: cancellation that really stops, streams that never break a character, stop strings, limits."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knowledge.errors import InvalidInput
from language_model import LanguageModel, Overlay
from language_model.errors import PromptTooLong
from language_model.generation import TextAssembler
from language_model.text import TextCodec
from language_model.tiny import tiny_model, tiny_tokenizer
from tests.language_model.helpers import PROMPTS, low_rank

CODEC = TextCodec(tiny_tokenizer())


def _byte_letters() -> dict[int, str]:
    """The letter by which GPT-2's vocabulary writes each byte: printable ones as themselves, the others from 256 on."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + n) for n, byte in enumerate(others)}


BYTES = _byte_letters()


@contextmanager
def counted(lm: LanguageModel) -> Iterator[list[int]]:
    """Counts the model's passes."""
    passes: list[int] = []
    handle = lm.model.register_forward_pre_hook(lambda module, args: passes.append(1))
    try:
        yield passes
    finally:
        handle.remove()


@pytest.fixture(scope="module")
def talker() -> LanguageModel:
    """A model that goes on for long: its end token cannot be chosen."""
    for seed in range(50):
        lm = tiny_model("gpt2", seed=seed)
        if len(list(lm.stream(PROMPTS[0], max_new_tokens=40))) > 20:
            return lm
    raise AssertionError("no seed gives a long answer")


def test_closing_the_stream_stops_within_a_token(talker: LanguageModel) -> None:
    threads = threading.active_count()
    with counted(talker) as passes:
        stream = talker.stream(PROMPTS[0], max_new_tokens=40)
        assert not passes  # nothing is computed before the first piece is asked for
        next(stream)
        at = len(passes)
        stream.close()  # type: ignore[attr-defined]
        assert len(passes) == at < 10
    assert threading.active_count() == threads


def test_cancel_stops_stream_and_batch_within_a_token(talker: LanguageModel) -> None:
    cancel = threading.Event()
    with counted(talker) as passes:
        stream = talker.stream(PROMPTS[0], max_new_tokens=40, cancel=cancel)
        first = next(stream)
        at = len(passes)
        cancel.set()
        assert list(stream) == []
        assert len(passes) == at
        assert talker.generate(PROMPTS, cancel=cancel) == ["", "", ""]
        assert len(passes) == at
    whole = talker.generate(PROMPTS[:1], max_new_tokens=40)[0]
    assert whole.startswith(first)
    assert whole != first


def test_cancel_from_another_thread_stops_a_running_batch(talker: LanguageModel) -> None:
    cancel = threading.Event()
    with counted(talker) as passes:
        handle = talker.model.register_forward_pre_hook(lambda module, args: cancel.set() if len(passes) == 5 else None)
        try:
            answers = talker.generate(PROMPTS, max_new_tokens=40, cancel=cancel)
        finally:
            handle.remove()
        assert len(passes) == 5
    full = talker.generate(PROMPTS, max_new_tokens=4)
    assert answers == full


def test_cancel_in_the_middle_of_a_pass_skips_the_other_layers(tiny: Callable[..., LanguageModel]) -> None:
    lm = tiny("llama")
    cancel = threading.Event()
    reached: list[int] = []
    blocks = [lm.module(lm.architecture.block(layer)) for layer in (0, 1)]
    lm.watch_blocks()
    handles = [
        blocks[0].register_forward_hook(lambda *_: cancel.set()),
        blocks[1].mlp.register_forward_hook(lambda *_: reached.append(1)),  # type: ignore[union-attr, operator]
    ]
    try:
        assert lm.generate(PROMPTS, cancel=cancel) == ["", "", ""]
    finally:
        for handle in handles:
            handle.remove()
    assert not reached


def test_a_suspended_stream_leaks_nothing_into_its_caller(talker: LanguageModel) -> None:
    overlay = low_rank(talker)
    expected = talker.generate(PROMPTS[:1], max_new_tokens=20, overlays=[overlay])[0]
    with talker.overlaid(overlay):
        stream = talker.stream(PROMPTS[0], max_new_tokens=20)
    text = next(stream)
    assert talker.overlay is None
    assert torch.is_grad_enabled()
    with talker.overlaid(low_rank(talker, seed=77)):  # another block in between does not reach it
        text += next(stream)
    box: list[str] = []
    thread = threading.Thread(target=lambda: box.extend(stream))  # servers ask for each piece in another thread
    thread.start()
    thread.join()
    assert text + "".join(box) == expected


def test_stream_with_empty_overlay_is_the_plain_model(talker: LanguageModel) -> None:
    with talker.overlaid(low_rank(talker)):
        got = "".join(talker.stream(PROMPTS[0], overlay=Overlay.empty(), max_new_tokens=10))
    assert got == talker.generate(PROMPTS[:1], max_new_tokens=10)[0]


@given(
    st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from("é字🙂 \n"), max_size=40),
    st.lists(st.sampled_from(["\n", "é", "Q:", "\n\n", "字🙂", "ab"]), max_size=2),
)
def test_streamed_text_is_whole_and_equal_to_the_final_text(text: str, stop: list[str]) -> None:
    ids = CODEC.encode_text(text, special=False) if text else []
    assembler = TextAssembler(CODEC, stop)
    pieces = []
    for token in ids:
        pieces.append(assembler.push(token))
        assert "\ufffd" not in pieces[-1] or "\ufffd" in text
        if assembler.finished:
            break
    pieces.append(assembler.end())
    blank = len(text) - len(text.lstrip())
    cuts = [at for at in (text.find(s, 0 if s.strip() else blank) for s in stop) if at >= 0]
    expected = text[: min(cuts)] if cuts else text
    assert "".join(pieces) == assembler.text == expected.strip().rstrip("\ufffd")


@given(st.binary(min_size=1, max_size=30))
def test_bytes_that_are_no_utf8_never_break_the_stream(data: bytes) -> None:
    ids = [CODEC.tokenizer.convert_tokens_to_ids(BYTES[byte]) for byte in data]
    assembler = TextAssembler(CODEC)
    joined = "".join([*map(assembler.push, ids), assembler.end()])
    assert joined == assembler.text
    joined.encode("utf-8")
    if data.decode("utf-8", "ignore").encode() == data:
        assert joined == data.decode().strip()


def test_stop_strings_cut_every_form(talker: LanguageModel) -> None:
    whole = talker.generate(PROMPTS[:1], max_new_tokens=40)[0]
    random.seed(0)
    for _ in range(10):
        at = random.randrange(1, len(whole) - 3)
        stop = whole[at : at + 2]
        if not stop.strip():
            continue
        expected = whole[: whole.find(stop)].strip()
        with counted(talker) as passes:
            assert talker.generate(PROMPTS[:1], max_new_tokens=40, stop=[stop]) == [expected]
            assert len(passes) <= 40
        assert "".join(talker.stream(PROMPTS[0], max_new_tokens=40, stop=[stop])) == expected


def test_many_prompts_keep_their_order(tiny_lm: LanguageModel) -> None:
    prompts = [f"{'The capital of ' * (n % 5)}{n}" for n in range(150)]
    assert tiny_lm.generate(prompts, max_new_tokens=3)[::37] == tiny_lm.generate(prompts[::37], max_new_tokens=3)
    assert tiny_lm.generate([]) == []
    assert tiny_lm.score([], []) == []


def test_limits_are_said(tiny_lm: LanguageModel) -> None:
    long = "Paris " * 400
    calls: list[Callable[[], Any]] = [
        lambda: tiny_lm.generate([long]),
        lambda: tiny_lm.stream(long),
        lambda: tiny_lm.score([long], ["Rome"]),
    ]
    for call in calls:
        with pytest.raises(PromptTooLong, match=r"at most 256"):
            call()
    with pytest.raises(InvalidInput, match="max_new_tokens"):
        tiny_lm.generate(["a"], max_new_tokens=0)
    with pytest.raises(InvalidInput, match="2 prompts but 1 overlays"):
        tiny_lm.generate(["a", "b"], overlays=[None])
    tokens = [5] * 250
    room = tiny_lm.generate([tiny_lm.codec.decode(tokens)], max_new_tokens=500)
    assert len(room) == 1  # the answer ends where the context does
