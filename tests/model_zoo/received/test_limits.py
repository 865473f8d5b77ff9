"""What a model folder may not ask for: each is refused in one line, in bounded time and memory."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from emosym.errors import UserError
from model_zoo import zoo
from model_zoo.received import limits
from model_zoo.received.chat_template import TurnForm, turn_form
from model_zoo.text.clip import load_clip
from model_zoo.text.text_encoders import load_text_encoder
from model_zoo.text.tokenizer import CHAT_TEMPLATE
from tests.emosym.cli.command import ROOT
from tests.model_zoo import clip_files
from tests.model_zoo.model_folder import weights

MEMORY = 20 * 2**30
"""Address space of the tests in their own process; one wrong size takes thousands of times more."""
BOMB = "(a+)+$"
HUGE = 10**12
CONFIG = "backbone/config.json"
TEXT, VISION = "text_config", "vision_config"
SIZES = [
    *((CONFIG, (TEXT, key), HUGE) for key in ("hidden_size", "intermediate_size", "vocab_size")),
    *((CONFIG, (TEXT, key), 10**9) for key in ("hidden_size", "intermediate_size", "vocab_size")),
    (CONFIG, (TEXT, "num_hidden_layers"), HUGE),
    (CONFIG, (TEXT, "num_hidden_layers"), 10**6),
    (CONFIG, (TEXT, "num_attention_heads"), HUGE),
    (CONFIG, (TEXT, "num_attention_heads"), 0),
    (CONFIG, (TEXT, "num_key_value_heads"), 0),
    (CONFIG, (TEXT, "hidden_size"), -1),
    (CONFIG, (VISION, "depth"), HUGE),
    (CONFIG, (VISION, "hidden_size"), 10**9),
    (CONFIG, (VISION, "intermediate_size"), HUGE),
    (CONFIG, (VISION, "out_hidden_size"), 10**9),
    (CONFIG, (VISION, "in_channels"), 10**9),
    (CONFIG, (VISION, "window_size"), 10**9),
    (CONFIG, (VISION, "window_size"), 0),
    (CONFIG, (VISION, "window_size"), 8),
    (CONFIG, (TEXT, "rope_parameters", "mrope_section"), [10**9, 8, 8]),
    (CONFIG, (TEXT, "rope_parameters", "mrope_section"), [4, 8]),
    (CONFIG, (TEXT, "rope_parameters", "mrope_section"), "abc"),
    (CONFIG, (VISION, "patch_size"), 0),
    (CONFIG, (VISION, "patch_size"), 10**6),
    (CONFIG, (VISION, "temporal_patch_size"), 10**9),
    (CONFIG, (VISION, "spatial_merge_size"), 0),
    (CONFIG, (VISION, "spatial_merge_size"), 10**6),
    ("decoder/transformer/config.json", ("num_layers",), HUGE),
    ("decoder/transformer/config.json", ("num_attention_heads",), 10**9),
    ("decoder/transformer/config.json", ("attention_head_dim",), 10**9),
    ("decoder/transformer/config.json", ("pos_embed_max_size",), 10**6),
    ("decoder/transformer/config.json", ("joint_attention_dim",), HUGE),
    ("decoder/transformer/config.json", ("patch_size",), 0),
    ("decoder/vae/config.json", ("block_out_channels",), [10**9]),
    ("decoder/vae/config.json", ("layers_per_block",), HUGE),
    ("decoder/vae/config.json", ("latent_channels",), 10**9),
    ("decoder/text_encoder/config.json", ("num_layers",), HUGE),
    ("decoder/text_encoder/config.json", ("d_model",), 10**9),
    ("decoder/text_encoder/config.json", ("d_ff",), HUGE),
    ("decoder/text_encoder/config.json", ("vocab_size",), 10**9),
    ("decoder/text_encoder/config.json", ("relative_attention_num_buckets",), 10**9),
    ("decoder/scheduler/scheduler_config.json", ("num_train_timesteps",), HUGE),
    ("emosym.json", ("model", "reasoning_tokens"), 10**9),
    ("emosym.json", ("model", "knowledge_width"), 10**9),
    ("emosym.json", ("model", "image_size"), 10**9),
    ("emosym.json", ("text_tokens",), 10**9),
]
IDS = [
    (CONFIG, ("image_token_id",), HUGE),
    (CONFIG, ("image_token_id",), -1),
    (CONFIG, ("image_token_id",), 100_000),
    (CONFIG, ("vision_start_token_id",), 10**9),
    (CONFIG, (TEXT, "eos_token_id"), 10**9),
    (CONFIG, (TEXT, "eos_token_id"), [3, 10**9]),
    (CONFIG, (TEXT, "pad_token_id"), -5),
    ("decoder/text_encoder/config.json", ("pad_token_id",), 10**9),
]
PREPROCESSOR = "backbone/preprocessor_config.json"
PIXELS = [
    (PREPROCESSOR, ("size",), {"shortest_edge": HUGE, "longest_edge": HUGE}),
    (PREPROCESSOR, ("size",), {"shortest_edge": 4096, "longest_edge": HUGE}),
    (PREPROCESSOR, ("size",), {"shortest_edge": 8192, "longest_edge": 4096}),
    (PREPROCESSOR, ("size",), {"shortest_edge": 0, "longest_edge": 0}),
    (PREPROCESSOR, ("size",), {"shortest_edge": -5, "longest_edge": 4096}),
    (PREPROCESSOR, ("min_pixels",), HUGE),
    (PREPROCESSOR, ("patch_size",), 10**9),
    (PREPROCESSOR, ("merge_size",), 0),
    (PREPROCESSOR, ("temporal_patch_size",), 0),
]


def nested(key: str, step: dict, count: int) -> dict:
    """Return a sequence of steps in a sequence."""
    return {"type": "Sequence", key: [{"type": "Sequence", key: [step] * count}]}


def template(single: list, ids: list[int]) -> dict:
    """Return a post-processor that writes `single`, and `ids` for the special token x."""
    token = {"id": "x", "ids": ids, "tokens": ["x"] * len(ids)}
    pair = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    return {"type": "TemplateProcessing", "single": single, "pair": pair,
            "special_tokens": {"x": token}}  # fmt: skip


SEQUENCE = [{"Sequence": {"id": "A", "type_id": 0}}]
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TOKENIZERS = [
    (("pre_tokenizer",), {"type": "Split", "pattern": {"Regex": BOMB}, "behavior": "Isolated",
                          "invert": False}),
    (("normalizer",), {"type": "Replace", "pattern": {"Regex": BOMB}, "content": ""}),
    (("normalizer",), {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}),
    (("normalizer",), {"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 60}),
    *((("normalizer",), nested("normalizers", step, 7)) for step in (
        {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"},
        {"type": "Replace", "pattern": {"String": ""}, "content": "a"},
        {"type": "ByteLevel"})),
    (("pre_tokenizer",), nested("pretokenizers", BYTES, 7)),
    (("decoder",), nested("decoders", {"type": "Replace", "pattern": {"String": "a"},
                                        "content": "aa"}, 7)),
    (("post_processor",), template(SEQUENCE * 20_000, [1])),
    (("post_processor",), template([{"SpecialToken": {"id": "x", "type_id": 0}}] * 8, [1] * 9)),
    (("post_processor",), nested("processors", template(SEQUENCE * 2, [1]), 7)),
    (("normalizer",), {"type": "Prepend", "prepend": "a" * 10**6}),
    (("padding",), {"strategy": {"Fixed": HUGE}, "direction": "Right", "pad_to_multiple_of": None,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}),
    (("padding",), {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": 10**9,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}),
    (("added_tokens",), [{"id": 10**9, "content": "<far>", "special": True, "single_word": False,
                          "lstrip": False, "rstrip": False, "normalized": False}]),
    (("model",), {"type": "BPE", "vocab": {}, "merges": [["a", "b"]]}),
    (("model",), 3),
]  # fmt: skip
TEMPLATES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops deep": "{% for a in range(9999) %}" * 4 + "x" + "{% endfor %}" * 4,
    "gigabytes": "{{ 'x' * 10000000000 }}",
    "gigabytes of text": "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "doubles": "{% set ns = namespace(s='x' * 99) %}{% for a in range(99) %}"
    "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "format": "{{ '%9999999999d' % 1 }}",
    "center": "{{ 'a'|center(99999999999) }}",
    "code": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "code of the environment": "{{ self.__init__.__globals__ }}",
    "import": "{% import 'os' as os %}",
    "no text": "<|image_pad|>",
    "text first": CHAT_TEMPLATE.replace("message.content", "message.content|reverse"),
    "other text": CHAT_TEMPLATE.replace("part.text", "part.text|trim"),
    "two image tokens": CHAT_TEMPLATE.replace("<|image_pad|>", "<|image_pad|><|image_pad|>"),
    "broken": "{% for",
    "refuses": "{{ raise_exception('no') }}",
}


def put(path: Path, keys: tuple[str, ...], value: object) -> None:
    found = json.loads(path.read_text())
    inner = found
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(json.dumps(found))


def bounded(function) -> None:
    """Run in this process with an address space in which terabytes do not fit."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, before[1]))
    try:
        function()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        bounded(lambda: zoo.load(folder))
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 1500
    return text


def named(case) -> str:
    file, keys, value = case
    return f"{file}-{'.'.join(keys)}-{str(value)[:24]}"


@pytest.mark.parametrize(("file", "keys", "value"), [*SIZES, *IDS, *PIXELS],
                         ids=map(named, [*SIZES, *IDS, *PIXELS]))  # fmt: skip
def test_numbers(file, keys, value, folder):
    put(folder / file, keys, value)
    found = refused(folder)
    assert "MemoryError" not in found
    assert Path(file).name in found or str((folder / file).parent) in found


@pytest.mark.parametrize(("keys", "value"), TOKENIZERS)
def test_tokenizers(keys, value, folder):
    put(folder / "backbone/tokenizer.json", keys, value)
    assert "backbone" in refused(folder)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 64}),
        ("normalizer", nested("normalizers", {"type": "ByteLevel"}, 6)),
        ("decoder", nested("decoders", BYTES, 7)),  # they make texts shorter
        ("post_processor", template(SEQUENCE * 8, [1] * 8)),
    ],
)
def test_texts_may_become_64_times_longer(part, value, folder):
    put(folder / "backbone/tokenizer.json", (part,), value)
    limits.check_tokenizer(folder / "backbone/tokenizer.json")


def test_patterns_of_released_tokenizers_are_known(tmp_path):
    """The ones in this installation of transformers."""
    from transformers import CLIPTokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN2
    from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX as QWEN35

    assert {QWEN2, QWEN35} <= set(limits.PATTERNS)
    CLIPTokenizer().save_pretrained(tmp_path)
    limits.check_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_chat_templates(template, folder):
    (folder / "backbone/chat_template.jinja").write_text(template)
    found = refused(folder)
    assert "chat template" in found or "cannot be loaded" in found


def test_the_form_of_a_turn():
    form = turn_form(CHAT_TEMPLATE, "<|image_pad|>", ())
    image = "<|vision_start|><|image_pad|><|vision_end|>"
    assert form == TurnForm("<|im_start|>user\n", image, "<|im_end|>\n<|im_start|>assistant\n")
    with_system = (
        "{% set n = namespace(images=0) %}{% for message in messages %}{% if loop.first and"
        " message['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    ) + CHAT_TEMPLATE.partition("{% for message in messages %}")[2]
    found = turn_form(with_system, "<|image_pad|>", (("eos_token", "<|im_end|>"),))
    assert found.before == "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n"
    assert found.turn("hi", ["I", "J"]) == found.before + "IJhi" + found.after


def test_a_turn_is_what_transformers_renders():
    tokenizer = zoo.load("emosym-tiny").processor
    for images in ([], [4], [4, 2]):
        content = [{"type": "image"}] * len(images) + [{"type": "text", "text": " a {{ b }} "}]
        whole = tokenizer.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        for count in images:
            whole = whole.replace("<|image_pad|>", "@" * count, 1)
        found = tokenizer._turn(" a {{ b }} ", images)
        assert found == whole.replace("@", "<|image_pad|>")


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["backbone", "decoder/vae", "decoder/text_encoder", "."])
def test_weights_that_are_not_finite(part, value, folder):
    path, state = weights(folder, part)
    name = sorted(state)[-1]
    state[name].view(-1)[-1] = value
    safetensors.torch.save_file(state, path, {"format": "pt"})
    assert "not finite" in refused(folder)


def lying(header: dict, data: bytes = b"\0" * 64) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 10**12) + b"{}",
        lying({"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 64]}}),
        lying({"a": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}),
        lying({"a": {"dtype": "F32", "shape": [16], "data_offsets": [64, 0]}}),
        lying({"a": {"dtype": "F32", "shape": [-16], "data_offsets": [0, 64]}}),
        lying({"a": {"dtype": "F32", "shape": [2**63, 2], "data_offsets": [0, 64]}}),
        lying({"a": {"dtype": "X9", "shape": [16], "data_offsets": [0, 64]}}),
    ],
)
@pytest.mark.parametrize("file", ["backbone/model.safetensors", "heads.safetensors"])
def test_headers_that_lie(content, file, folder):
    (folder / file).write_bytes(content)
    refused(folder)


# --- CLIP, commands -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "keys", "value"),
    [
        ("config.json", ("text_config", "hidden_size"), 10**9),
        ("config.json", ("vision_config", "image_size"), 10**9),
        ("config.json", ("text_config", "num_hidden_layers"), HUGE),
        ("config.json", ("text_config", "eos_token_id"), 10**9),
        ("preprocessor_config.json", ("size",), {"shortest_edge": 10**9}),
        ("preprocessor_config.json", ("crop_size",), {"height": 10**9, "width": 32}),
    ],
)
def test_clip(file, keys, value, tmp_path):
    folder = clip_files.write(tmp_path / "clip")
    put(folder / file, keys, value)
    with pytest.raises(UserError):
        bounded(lambda: load_clip(folder))
    if file == "config.json" and keys[0] == "text_config":
        with pytest.raises(UserError):
            bounded(lambda: load_text_encoder(str(folder)))


def test_a_command_says_it_in_one_line(folder, tmp_path):
    put(folder / CONFIG, (TEXT, "hidden_size"), 10**9)
    done = subprocess.run(
        [sys.executable, "-m", "emosym", "generate", "--emotion", "awe", "--out",
         str(tmp_path / "out"), "--model", str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_pixels_of_compose_are_limited(folder):
    from model_zoo.compose import compose

    with pytest.raises(UserError, match=r"minimum and maximum of an image's pixels; got 1 and 10+"):
        compose(folder / "backbone", folder, pixels=(1, HUGE))


def test_sound_models_are_not_refused(folder):
    limits.check_layers(folder / CONFIG, {"num_hidden_layers": limits.LAYERS})
    limits.check_finite({"a": torch.tensor([3e38, -3e38]), "b": torch.tensor([1])}, folder)
    zoo.load(folder)
