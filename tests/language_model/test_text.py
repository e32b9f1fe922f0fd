"""Rendering, leading spaces, spans; scores against a calculation by hand."""

from __future__ import annotations

import pytest
import torch

from knowledge.errors import InvalidInput
from language_model import LanguageModel
from language_model.errors import ModelUnusable
from language_model.prompts import Message, assistant, user
from language_model.text import Prompt, TextCodec
from language_model.tiny import tiny_tokenizer
from tests.language_model.helpers import PROMPTS, low_rank

CHAT: list[Message] = [user("Where is Big Ben?"), assistant("London"), user("And the Louvre?")]


def test_chat_template_and_plain_rendering(tiny_lm: LanguageModel, tiny_chat_lm: LanguageModel) -> None:
    assert tiny_chat_lm.has_chat
    assert not tiny_lm.has_chat
    assert tiny_chat_lm.render(CHAT) == (
        "<|user|>Where is Big Ben?<|end|><|assistant|>London<|end|><|user|>And the Louvre?<|end|><|assistant|>"
    )
    assert tiny_lm.render(CHAT) == "Q: Where is Big Ben?\nA: London\nQ: And the Louvre?\nA:"
    system: Message = {"role": "system", "content": "Be brief."}
    assert tiny_lm.render([system, user("Hi")]) == "Be brief.\n\nQ: Hi\nA:"
    assert tiny_lm.render("The capital of") == "The capital of"
    assert tiny_lm.chat("And the Louvre?", CHAT[:2]) == CHAT
    with pytest.raises(InvalidInput, match="empty"):
        tiny_lm.render([])


def test_plain_chat_stops_where_the_next_question_would_begin(
    tiny_lm: LanguageModel, tiny_chat_lm: LanguageModel
) -> None:
    assert "\nQ:" in tiny_lm.codec.stops(CHAT)
    assert tiny_lm.codec.stops("text") == () == tiny_chat_lm.codec.stops(CHAT)


def test_templates_that_refuse_the_system_role_get_it_in_the_first_turn() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "[{{ m.content }}]{% endfor %}"
    )
    codec = TextCodec(tokenizer)
    system: Message = {"role": "system", "content": "Be brief."}
    assert codec.render([system, user("Hi")]) == "[Be brief.\n\nHi]"
    with pytest.raises(ModelUnusable, match="no system role"):
        codec.render([system])


def test_the_leading_space_is_added_once(tiny_lm: LanguageModel, tiny_chat_lm: LanguageModel) -> None:
    text = tiny_lm.tokenizer.decode
    assert text(tiny_lm.target_ids("Paris")) == text(tiny_lm.target_ids("  Paris ")) == " Paris"
    assert text(tiny_lm.target_ids("Paris", "chat")) == " Paris"  # after "A:"
    assert text(tiny_chat_lm.target_ids("Paris", "chat")) == "Paris"
    assert text(tiny_lm.target_ids_after("The capital is ", "Paris")) == "Paris"
    assert text(tiny_lm.target_ids_after("法国的首都是", "巴黎")) == "巴黎"
    with pytest.raises(InvalidInput, match="empty"):
        tiny_lm.target_ids(" ")


def test_a_template_with_a_space_before_the_answer_is_found_out() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    codec = TextCodec(tokenizer)
    assert codec.chat_lead == " "
    assert tokenizer.decode(codec.target_ids("Paris", "chat")) == " Paris"


def test_start_token_once_and_no_end_token(tiny_lm: LanguageModel) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer(chat=True)
    end = tokenizer.eos_token_id
    tokenizer.bos_token = "<|system|>"
    start = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|system|> $A <|end|>", special_tokens=[("<|system|>", start), ("<|end|>", end)]
    )
    codec = TextCodec(tokenizer)
    ids = codec.encode("Paris")
    assert ids[0] == start
    assert end not in ids
    assert start not in codec.encode([user("Paris")])  # a template writes its own
    assert start not in codec.target_ids("Paris")
    assert end not in codec.target_ids("Paris")
    assert codec.encode("")[0] == start
    assert tiny_lm.codec.encode("") == [tiny_lm.tokenizer.eos_token_id]


def test_spans_of_text_in_tokens(tiny_lm: LanguageModel, tiny_chat_lm: LanguageModel) -> None:
    for lm, prompt in ((tiny_lm, PROMPTS[0]), (tiny_chat_lm, [user("Où est 🙂 the Eiffel Tower?")])):
        text = lm.render(prompt)
        start = text.index("Eiffel Tower")
        span = lm.codec.token_span(prompt, start, start + len("Eiffel Tower"))
        ids = lm.codec.encode(prompt)
        assert lm.tokenizer.decode(ids[span.start : span.stop]).strip() == "Eiffel Tower"
        again = lm.codec.token_span(prompt, start - 1, start + len("Eiffel Tower"))  # a space before counts for nothing
        assert again == span
    with pytest.raises(InvalidInput, match="no text"):
        tiny_lm.codec.token_span("Paris", 5, 9)


def test_scores_equal_a_calculation_by_hand(tiny_lm: LanguageModel, tiny_chat_lm: LanguageModel) -> None:
    for lm in (tiny_lm, tiny_chat_lm):
        prompts: list[Prompt] = [PROMPTS[0], [user("Where is Big Ben?")], PROMPTS[2]]
        targets = ["Rome", "London, of course", "Paris"]
        overlay = low_rank(lm)
        overlays = [None, overlay, None]
        scores = lm.score(prompts, targets, overlays=overlays)
        for prompt, target, one, score in zip(prompts, targets, overlays, scores, strict=True):
            head, tail = lm.codec.encode(prompt), lm.target_ids_after(prompt, target)
            with lm.overlaid(one), torch.no_grad():
                logits = lm.model(input_ids=torch.tensor([head + tail])).logits[0]
            by_hand = [float(logits[len(head) - 1 + i].log_softmax(-1)[token]) for i, token in enumerate(tail)]
            hits = tuple(int(logits[len(head) - 1 + i].argmax()) == token for i, token in enumerate(tail))
            assert score.token_logprobs == pytest.approx(by_hand, abs=1e-4)
            assert score.argmax_hits == hits
            assert score.exact == all(hits)
            assert score.sum_logprob == pytest.approx(sum(by_hand), abs=1e-4)
            assert score.mean_logprob == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-4)


def test_the_greedy_answer_scores_as_exact(tiny_lm: LanguageModel) -> None:
    from language_model.generation import Decoder

    decoder = Decoder(tiny_lm, [tiny_lm.codec.encode(PROMPTS[0])], [None])
    tokens = [decoder.step()[0] for _ in range(5)]
    trace = tiny_lm.trace([PROMPTS[0]], targets=[tokens])
    start = int(trace.last_prompt[0])
    assert trace.logits[0, start : start + 5].argmax(-1).tolist() == tokens


@pytest.mark.parametrize("space", ["", " "])
@pytest.mark.parametrize("target", ["Paris", "New York City", "1889", "São Paulo", '"Hamlet"', "I don't know", "北京"])
def test_prompt_and_target_are_the_tokens_of_the_whole_text(space: str, target: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>" + space + "{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    codec = TextCodec(tokenizer)
    question = user("Where is Big Ben?")
    whole = tokenizer.apply_chat_template([question, assistant(target)], tokenize=False)
    ids = codec.encode([question]) + codec.target_ids(target, "chat") + [tokenizer.eos_token_id]
    assert ids == tokenizer(whole, add_special_tokens=False)["input_ids"]
