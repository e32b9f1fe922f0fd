"""Overlays: exact on exit, whatever happens; additive; saved and loaded; refused on the wrong model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from knowledge.errors import InvalidInput
from language_model import Adapter, Dense, LanguageModel, LowRank, Overlay, current_context
from language_model.architectures import weight_in_out
from language_model.errors import OverlayMismatch, OverlayUnreadable
from language_model.fingerprint import fingerprint
from language_model.tiny import tiny_model
from tests.language_model.helpers import PROMPTS, Keyed, Shift, hook_count, logits, low_rank, noise


def test_exact_on_exit_and_nested(tiny_lm: LanguageModel) -> None:
    before, weights = logits(tiny_lm, PROMPTS), fingerprint(tiny_lm.model)
    one, two = low_rank(tiny_lm, seed=1), low_rank(tiny_lm, layer=0, seed=7)
    with tiny_lm.overlaid(one):
        outer = logits(tiny_lm, PROMPTS)
        with tiny_lm.overlaid(two):
            inner = logits(tiny_lm, PROMPTS)
        with tiny_lm.overlaid(None):
            assert torch.equal(logits(tiny_lm, PROMPTS), before)
        assert torch.equal(logits(tiny_lm, PROMPTS), outer)
        assert torch.equal(logits(tiny_lm, PROMPTS, overlays=[None] * 3), before)
    assert torch.equal(logits(tiny_lm, PROMPTS), before)
    assert not torch.equal(outer, before)
    assert not torch.equal(inner, outer)
    assert fingerprint(tiny_lm.model) == weights


def test_exact_after_an_exception_even_inside_a_pass(tiny_lm: LanguageModel) -> None:
    before = logits(tiny_lm, PROMPTS)

    def fail(value: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), tiny_lm.overlaid(low_rank(tiny_lm)):
        tiny_lm.trace(PROMPTS, change_outputs={tiny_lm.architecture.block(0): fail})
    assert tiny_lm.overlay is None
    assert torch.equal(logits(tiny_lm, PROMPTS), before)


def test_an_empty_overlay_is_bit_for_bit_the_model(tiny_lm: LanguageModel) -> None:
    with tiny_lm.overlaid(Overlay.empty()):
        inside = logits(tiny_lm, PROMPTS)
    assert torch.equal(inside, logits(tiny_lm, PROMPTS))


@pytest.fixture
def one_core() -> Iterator[None]:
    """Kernels that share their work among as many cores as are free give other last bits from one call to the next."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_core")
def test_threads_do_not_see_each_other(tiny_lm: LanguageModel) -> None:
    overlays = [None, *(low_rank(tiny_lm, seed=seed) for seed in (1, 5, 9))]
    with ThreadPoolExecutor(
        1
    ) as alone:  # a thread like those below: it takes its settings from the process, as they do
        expected = [alone.submit(logits, tiny_lm, PROMPTS, overlays=[overlay] * 3).result() for overlay in overlays]
    wrong: list[int] = []
    start = threading.Barrier(len(overlays))

    def work(number: int) -> None:
        start.wait()
        with tiny_lm.overlaid(overlays[number]):
            for _ in range(20):
                if not torch.equal(logits(tiny_lm, PROMPTS), expected[number]):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(overlays))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_models_in_one_thread(tiny: Callable[..., LanguageModel]) -> None:
    first, second = tiny("gpt2"), tiny("gpt2", chat=True)
    before = logits(second, PROMPTS)
    with first.overlaid(low_rank(first)):
        assert torch.equal(logits(second, PROMPTS), before)


def test_a_copied_model_is_not_reached(tiny_lm: LanguageModel) -> None:
    import copy

    overlay = low_rank(tiny_lm)
    tiny_lm.hooks.prepare([overlay])
    clone = LanguageModel(copy.deepcopy(tiny_lm.model), tiny_lm.tokenizer)
    before = logits(clone, PROMPTS)
    with tiny_lm.overlaid(overlay):
        assert torch.equal(logits(clone, PROMPTS), before)


def test_hooks_are_installed_once(tiny_lm: LanguageModel) -> None:
    overlay = low_rank(tiny_lm)
    tiny_lm.generate(PROMPTS, overlays=[overlay] * 3, max_new_tokens=2)
    count = hook_count(tiny_lm.hooks)
    for seed in range(5):
        tiny_lm.generate(PROMPTS, overlays=[low_rank(tiny_lm, seed=seed)] * 3, max_new_tokens=2)
    assert hook_count(tiny_lm.hooks) == count


def test_addition_keeps_order_and_sums_deltas(tiny_lm: LanguageModel) -> None:
    one, two, three = low_rank(tiny_lm, seed=1), low_rank(tiny_lm, seed=5), low_rank(tiny_lm, layer=0)
    name = tiny_lm.architecture.down(1)
    total = one + two + three
    assert total.parts[name] == one.parts[name] + two.parts[name]
    assert total.modules == (name, tiny_lm.architecture.down(0))
    torch.testing.assert_close(total.delta(name), one.delta(name) + two.delta(name))  # type: ignore[operator]
    assert one + Overlay.empty() is one
    assert Overlay.empty() + one is one
    assert total.delta("transformer.wte") is None
    dense = Overlay({n: (Dense(total.delta(n)),) for n in total.modules})  # type: ignore[arg-type]
    a, b = (logits(tiny_lm, PROMPTS, overlays=[o] * 3) for o in (total, dense))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_adapters_come_after_deltas_whatever_the_order(tiny_lm: LanguageModel) -> None:
    delta, shift = low_rank(tiny_lm), Shift(tiny_lm.hidden_size)
    shift.vector.data.add_(1.0)
    adapter = Overlay({tiny_lm.architecture.down(1): (Adapter(shift),)})
    a, b = (logits(tiny_lm, PROMPTS, overlays=[o] * 3) for o in (delta + adapter, adapter + delta))
    assert torch.equal(a, b)
    assert not torch.equal(a, logits(tiny_lm, PROMPTS, overlays=[delta] * 3))


def test_norms_and_size(tiny_lm: LanguageModel) -> None:
    overlay = low_rank(tiny_lm, seed=1) + low_rank(tiny_lm, seed=5)
    name = tiny_lm.architecture.down(1)
    weight = weight_in_out(tiny_lm.module(name))
    expected = float(overlay.delta(name).norm() / weight.norm())  # type: ignore[union-attr]
    assert overlay.norms(tiny_lm) == {name: pytest.approx(expected, rel=1e-5)}
    mixed = overlay + Overlay({name: (Dense(noise(tuple(weight.shape), 3)),)})
    expected = float(mixed.delta(name).norm() / weight.norm())  # type: ignore[union-attr]
    assert mixed.norms(tiny_lm)[name] == pytest.approx(expected, rel=1e-5)
    assert overlay.num_bytes == 2 * 4 * 2 * sum(weight.shape)
    assert Overlay({name: (Adapter(Shift(32)),)}).norms(tiny_lm) == {}


def test_the_same_change_is_known_however_it_is_said(tiny_lm: LanguageModel) -> None:
    one, two = low_rank(tiny_lm, seed=1), low_rank(tiny_lm, seed=5)
    name = tiny_lm.architecture.down(1)
    for other in (one + two, two + one, Overlay({name: (Dense((one + two).delta(name)),)})):  # type: ignore[arg-type]
        assert (one + two).same_as(other)
    for other in (one, one + one, two + two, low_rank(tiny_lm, layer=0), Overlay.empty()):
        assert not (one + two).same_as(other)
    shift, far = Shift(tiny_lm.hidden_size), Shift(tiny_lm.hidden_size)
    far.vector.data.add_(1.0)
    around = [Overlay({name: (Adapter(part),)}) for part in (shift, Shift(tiny_lm.hidden_size), far)]
    assert around[0].same_as(around[1])
    assert not around[0].same_as(around[2])
    assert not around[0].same_as(one)
    assert (one + around[0]).same_as(around[1] + one)


def test_dtype_and_device(tiny_lm: LanguageModel) -> None:
    overlay = low_rank(tiny_lm) + Overlay({tiny_lm.architecture.down(0): (Adapter(Shift(32)),)})
    double = overlay.to(dtype=torch.float64)
    assert all(t.dtype == torch.float64 for _, part in double for t in part.tensors().values())
    a, b = (logits(tiny_lm, PROMPTS, overlays=[o] * 3) for o in (overlay, double))
    torch.testing.assert_close(a, b)


def test_a_delta_can_be_trained(tiny_lm: LanguageModel) -> None:
    name = tiny_lm.architecture.down(1)
    delta = torch.zeros(tuple(weight_in_out(tiny_lm.module(name)).shape), requires_grad=True)
    before = tiny_lm.score(PROMPTS[:1], ["Rome"])[0].mean_logprob
    optimiser = torch.optim.Adam([delta], lr=0.05)
    for _ in range(20):
        overlay = Overlay({name: (Dense(delta),)})
        trace = tiny_lm.trace(PROMPTS[:1], targets=["Rome"], overlays=[overlay], grad=True)
        loss = -trace.target_logprobs().mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    trained = Overlay({name: (Dense(delta.detach()),)})
    assert tiny_lm.score(PROMPTS[:1], ["Rome"], overlays=[trained])[0].mean_logprob > before + 1
    assert tiny_lm.score(PROMPTS[:1], ["Rome"])[0].mean_logprob == before


def test_save_and_load(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    name = tiny_lm.architecture.down(1)
    shift = Shift(32)
    shift.vector.data.add_(noise((32,), 4))
    overlay = low_rank(tiny_lm) + Overlay({name: (Dense(noise((128, 32), 2)), Adapter(shift))})
    path = tmp_path / "deep" / "overlay.safetensors"
    overlay.save(path)
    again = Overlay.load(path)
    assert repr(again) == repr(overlay)
    assert [type(part) for _, part in again] == [LowRank, Dense, Adapter]
    a, b = (logits(tiny_lm, PROMPTS, overlays=[o] * 3) for o in (overlay, again))
    assert torch.equal(a, b)
    Overlay.empty().save(path)
    assert not Overlay.load(path)
    assert [file.name for file in path.parent.iterdir()] == ["overlay.safetensors"]


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    with pytest.raises(OverlayUnreadable, match="no overlay file"):
        Overlay.load(tmp_path / "missing.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(OverlayUnreadable, match="damaged"):
        Overlay.load(tmp_path / "broken.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(OverlayUnreadable, match="format"):
        Overlay.load(tmp_path / "other.safetensors")
    header = {
        "format": "palimpsest-overlay/1",
        "parts": '[{"module": "m", "kind": "adapter", "prefix": "0.", "adapter": "test-shfit", "config": {}}]',
    }
    save_file({"a": torch.zeros(1)}, tmp_path / "adapter.safetensors", metadata=header)
    with pytest.raises(OverlayUnreadable, match="Did you mean 'test-shift'"):
        Overlay.load(tmp_path / "adapter.safetensors")


def test_the_wrong_model_is_refused(tiny: Callable[..., LanguageModel]) -> None:
    overlay = low_rank(tiny("llama"))
    with pytest.raises(OverlayMismatch, match="no module"), tiny("gpt2").overlaid(overlay):
        pass
    name = tiny("gpt2").architecture.down(0)
    with pytest.raises(OverlayMismatch, match="128 and 32"):
        tiny("gpt2").generate(["a"], overlays=[Overlay({name: (Dense(torch.zeros(32, 128)),)})])
    with pytest.raises(InvalidInput, match="Linear"):
        tiny("gpt2").generate(["a"], overlays=[Overlay({"transformer.ln_f": (Dense(torch.zeros(3, 3)),)})])
    with pytest.raises(InvalidInput, match="low-rank"):
        LowRank(torch.zeros(3, 2), torch.zeros(3, 2))


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama"])
def test_adapter_knows_its_rows_and_remembers_the_prompt(tiny: Callable[..., LanguageModel], family: str) -> None:
    lm = tiny(family)
    name = lm.architecture.down(1)
    traced = lm.trace([PROMPTS[1]], inputs=[name])
    key = traced.input(name, at=traced.last_prompt)[0]
    adapter = Keyed(key.shape[0], lm.hidden_size, radius=0.05)
    adapter.key.copy_(key)  # type: ignore[operator]
    adapter.value.copy_(noise((lm.hidden_size,), 8, 5.0))  # type: ignore[operator]
    overlay = Overlay({name: (Adapter(adapter),)})

    plain = lm.generate(PROMPTS, max_new_tokens=6)
    alone = lm.generate([PROMPTS[1]], max_new_tokens=6, overlays=[overlay])[0]
    adapter.seen.clear()
    edited = lm.generate(PROMPTS, max_new_tokens=6, overlays=[None, overlay, overlay])
    assert edited[1] == alone != plain[1]  # the key was recognised beside other prompts, and in the cached steps
    assert [edited[0], edited[2]] == [plain[0], plain[2]]
    lengths = [lm.count_tokens(prompt) for prompt in PROMPTS]
    assert adapter.seen[0] == (0, False, [1, 2], [max(lengths) - 1] * 2)
    assert adapter.seen[1] == (1, True, [1, 2], [-1, -1])
    assert [step for step, *_ in adapter.seen] == list(range(len(adapter.seen)))

    adapter.seen.clear()
    lm.score(PROMPTS, ["Rome"] * 3, overlays=[overlay] * 3)
    assert [place for _, _, _, places in adapter.seen for place in places] == [length - 1 for length in sorted(lengths)]


def test_a_bare_pass_of_the_model_counts_as_a_prompt(tiny_lm: LanguageModel) -> None:
    name = tiny_lm.architecture.down(1)
    adapter = Keyed(128, 32, radius=0.0)
    ids = tiny_lm.batch(PROMPTS[:2]).input_ids
    with tiny_lm.overlaid(Overlay({name: (Adapter(adapter),)})), torch.no_grad():
        tiny_lm.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert adapter.seen == [(0, False, [0, 1], [ids.shape[1] - 1] * 2)]
    with pytest.raises(RuntimeError, match="adapter"):
        current_context()


def test_float32_edits_on_a_model_of_16_bits() -> None:
    lm = tiny_model("llama")
    lm.model.to(torch.bfloat16)  # type: ignore[arg-type]
    shift = Shift(lm.hidden_size)
    shift.vector.data.add_(1.0)
    overlay = low_rank(lm) + Overlay({lm.architecture.down(1): (Adapter(shift),)})
    together = logits(lm, PROMPTS, overlays=[overlay, None, overlay])
    assert together.dtype == torch.bfloat16
    assert torch.equal(together[1], logits(lm, PROMPTS)[1])
    assert not torch.equal(together[0], logits(lm, PROMPTS)[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_overlays_made_on_the_cpu_work_on_a_gpu() -> None:
    cpu, gpu = tiny_model("llama"), tiny_model("llama")
    gpu.model.to("cuda")  # type: ignore[arg-type]
    overlays = [None, low_rank(cpu), low_rank(cpu, layer=0)]
    assert gpu.device.type == "cuda"
    expected = logits(cpu, PROMPTS, overlays=overlays)
    torch.testing.assert_close(logits(gpu, PROMPTS, overlays=overlays).cpu(), expected, atol=1e-3, rtol=1e-3)
    answers = gpu.generate(PROMPTS, overlays=overlays, max_new_tokens=4)
    assert answers == cpu.generate(PROMPTS, overlays=overlays, max_new_tokens=4)
