"""One table of families, each put through the same questions: does every part of the package hold for it?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from language_model import LanguageModel, Overlay
from language_model.architectures import ARCHITECTURES, weight_in_out
from language_model.tiny import CONFIGS
from tests.language_model.helpers import PROMPTS, as_dense, logits, low_rank, written

FAMILIES = sorted(CONFIGS)


@pytest.fixture(params=FAMILIES)
def lm(request: pytest.FixtureRequest, tiny: Callable[..., LanguageModel]) -> LanguageModel:
    model: LanguageModel = tiny(request.param)
    return model


def test_every_row_of_the_table_has_a_tiny_model() -> None:
    assert set(ARCHITECTURES) == set(CONFIGS)


def test_row_names_real_modules_of_the_right_shape(lm: LanguageModel) -> None:
    row = lm.architecture
    for layer in range(lm.num_layers):
        for name in (row.block(layer), row.mlp(layer), row.attn(layer)):
            lm.module(name)
        assert weight_in_out(lm.module(row.down(layer))).shape[1] == lm.hidden_size
        assert weight_in_out(lm.module(row.attn_out(layer))).shape[1] == lm.hidden_size
        assert all(weight_in_out(lm.module(name)).shape[0] == lm.hidden_size for name in row.ups(layer))
    assert lm.module(row.embedding) is lm.model.get_input_embeddings()
    assert lm.module(row.lm_head) is lm.model.get_output_embeddings()
    lm.module(row.final_norm)
    assert row.block(lm.num_layers) not in dict(lm.model.named_modules())


def test_greedy_equals_transformers_and_single_equals_batch(lm: LanguageModel) -> None:
    batch = lm.batch(PROMPTS, side="left")
    out = lm.model.generate(  # type: ignore[operator]
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        max_new_tokens=16,
        do_sample=False,
        pad_token_id=lm.pad_id,
    )
    theirs = [lm.codec.decode(row[batch.shape[1] :].tolist()).rstrip("\ufffd").strip() for row in out]
    assert lm.generate(PROMPTS, max_new_tokens=16) == theirs
    assert [lm.generate([prompt], max_new_tokens=16)[0] for prompt in PROMPTS] == theirs
    assert ["".join(lm.stream(prompt, max_new_tokens=16)) for prompt in PROMPTS] == theirs


def test_padding_on_either_side_changes_no_logit(lm: LanguageModel) -> None:
    for side in ("left", "right"):
        batch = lm.batch(PROMPTS, side=side)  # type: ignore[arg-type]
        with torch.no_grad():
            together = lm.forward(batch)
        for number, prompt in enumerate(PROMPTS):
            alone = logits(lm, [prompt])[0, -1]
            torch.testing.assert_close(together[number, batch.last[number]], alone, atol=2e-5, rtol=1e-4)


def test_overlay_equals_written_weights(lm: LanguageModel) -> None:
    overlay = low_rank(lm)
    modified = written(lm, overlay)
    before = logits(lm, PROMPTS)
    expected = logits(modified, PROMPTS)
    assert not torch.allclose(before, expected, atol=1e-2)
    for variant in (overlay, as_dense(overlay)):
        torch.testing.assert_close(logits(lm, PROMPTS, overlays=[variant] * 3), expected, atol=1e-4, rtol=1e-3)
        got = lm.generate(PROMPTS, max_new_tokens=12, overlays=[variant] * 3)
        assert got == modified.generate(PROMPTS, max_new_tokens=12)
    assert torch.equal(logits(lm, PROMPTS), before)


def test_rows_of_one_batch_have_overlays_of_their_own(lm: LanguageModel) -> None:
    overlays: list[Overlay | None] = [None, low_rank(lm, seed=1), low_rank(lm, seed=5), low_rank(lm, layer=0, seed=9)]
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[2], PROMPTS[0]]
    together = lm.generate(prompts, max_new_tokens=12, overlays=overlays)
    apart = [
        lm.generate([prompt], max_new_tokens=12, overlays=[overlay])[0]
        for prompt, overlay in zip(prompts, overlays, strict=True)
    ]
    assert together == apart
    assert together[0] == lm.generate([prompts[0]], max_new_tokens=12)[0] != together[3]


def test_trace_sees_the_same_tensors_in_every_family(lm: LanguageModel) -> None:
    row = lm.architecture
    trace = lm.trace(PROMPTS, inputs=[row.down(0), row.final_norm], outputs=[row.down(0), row.block(0), row.block(1)])
    rows, positions = trace.batch.shape
    assert trace.input(row.down(0)).shape[:2] == (rows, positions)
    for name in (row.down(0), row.block(0), row.block(1)):
        assert trace.output(name).shape == (rows, positions, lm.hidden_size)
    module = lm.module(row.down(0))
    torch.testing.assert_close(module(trace.input(row.down(0))), trace.output(row.down(0)), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(trace.output(row.block(1)), trace.input(row.final_norm), atol=1e-6, rtol=1e-5)
    one = lm.trace([PROMPTS[1]], outputs=[row.block(1)])
    at = trace.output(row.block(1), at=trace.last_prompt)[1]
    torch.testing.assert_close(at, one.output(row.block(1), at=one.last_prompt)[0], atol=2e-5, rtol=1e-4)


def test_gradients_reach_a_changed_value(lm: LanguageModel) -> None:
    row = lm.architecture
    delta = torch.zeros(lm.hidden_size, requires_grad=True)
    trace = lm.trace(
        PROMPTS, targets=["Rome"] * 3, change_outputs={row.down(0): lambda value: value + delta}, grad=True
    )
    (-trace.target_logprobs().mean()).backward()  # type: ignore[no-untyped-call]
    assert delta.grad is not None
    assert float(delta.grad.abs().sum()) > 0
    scores = [score.mean_logprob for score in lm.score(PROMPTS, ["Rome"] * 3)]
    torch.testing.assert_close(trace.target_logprobs().detach(), torch.tensor(scores), atol=1e-4, rtol=1e-4)
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in lm.model.parameters())
