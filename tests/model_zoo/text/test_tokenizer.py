from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from emosym.affect.scales import Affect
from emosym.models.imagine import imagine_prompt
from emosym.records import ImageRequest
from model_zoo.text.tokenizer import SPECIAL, TAGS, train_tokenizer
from tests.model_zoo.make import tokenizer
from train.data.base_texts import base_texts

UNIT = "\u2581"
"""SentencePiece's own sign for a space."""


def came_back(text: str) -> str:
    return tokenizer().decode(tokenizer()(text).input_ids)


def expected(text: str) -> str:
    spaced = text.replace(UNIT, " ")
    return spaced.removeprefix(" ")


@settings(max_examples=300, deadline=None)
@given(st.text())
@example("")
@example("two  spaces, trailing  ")
@example("\n\n a\tb\r\n\x00")
@example("日本語 😀 e\u0301 \u200b \ufeff")
@example("<0x41> </s> <s> <think>nested <think>")
def test_any_text_comes_back(text):
    assert came_back(text) == expected(text)


@given(st.lists(st.sampled_from([*TAGS, *SPECIAL, "a", " ", "\n", "é"])).map("".join))
def test_tags_and_control_tokens_come_back(text):
    assert came_back(text) == expected(text)


def test_what_is_lost_is_a_leading_space_only():
    assert came_back("  two") == " two"
    assert came_back("two  ") == "two  "
    assert came_back(f"a{UNIT}b") == "a b"
    assert tokenizer().unk_token_id not in tokenizer()("日本語 😀 \x00").input_ids


@pytest.mark.parametrize("token", [*SPECIAL, *TAGS])
def test_special_tokens_are_one_id_wherever_they_stand(token):
    words = tokenizer()
    ids = words(f"a{token}b {token}{token}").input_ids
    own = words.convert_tokens_to_ids(token)
    assert own != words.unk_token_id
    assert ids.count(own) == 3


def test_control_tokens_may_be_skipped_and_tags_never_are():
    words = tokenizer()
    ids = words("<think>a</think><|im_end|><|image_pad|>").input_ids
    assert words.decode(ids, skip_special_tokens=True) == "<think>a</think>"
    assert {*SPECIAL, "<pad>", "<unk>"} == set(words.all_special_tokens)
    assert (words.eos_token, words.pad_token_id, words.bos_token) == ("<|im_end|>", 0, None)


def test_the_chat_format_is_that_of_qwen():
    content = [{"type": "image"}, {"type": "text", "text": "why"}]
    turn = tokenizer().apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert turn == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>why<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_padding_stands_on_the_left():
    batch = tokenizer()(["a", "a b c"], padding=True)
    assert batch.attention_mask[0][0] == 0
    assert batch.attention_mask[0][-1] == 1


def test_training_is_a_function_of_its_text():
    first, again = (train_tokenizer(base_texts(60, 1), 500) for _ in range(2))
    assert first.get_vocab() == again.get_vocab()
    assert len(first) <= 500
    other = train_tokenizer(base_texts(60, 2), 500)
    assert other.get_vocab() != first.get_vocab()


def test_the_project_speaks_in_few_tokens():
    request = imagine_prompt(ImageRequest(emotion="fear", affect=Affect(-1.5, 2.0)))
    ids = tokenizer()(request).input_ids
    assert len(ids) < len(request) / 2
