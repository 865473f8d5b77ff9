"""Single fields of configurations that are refused before a library reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emosym.errors import UserError
from model_zoo import zoo
from model_zoo.received import fields
from model_zoo.text.clip import load_clip
from model_zoo.text.text_encoders import load_text_encoder
from tests.model_zoo import clip_files

BACKBONE, TEXT = "backbone/config.json", "decoder/text_encoder/config.json"
DENOISER, VAE = "decoder/transformer/config.json", "decoder/vae/config.json"
TOKENS, IMAGES = "tokenizer_config.json", "backbone/preprocessor_config.json"
QUANTIZED = {"quant_method": "bitsandbytes", "load_in_4bit": True}
CASES = [
    *((f"{part}/{TOKENS}", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]})
      for part in ("backbone", "decoder/tokenizer")),
    *((file, {"quantization_config": QUANTIZED}) for file in (BACKBONE, TEXT, DENOISER, VAE)),
    (BACKBONE, {"quantization_config": {}}),
    (BACKBONE, {"vision_config": {"quantization_config": QUANTIZED}}),
    (BACKBONE, {"compression_config": QUANTIZED}),
    *((file, {key: count}) for file in (BACKBONE, TEXT) for key in ("num_labels", "_num_labels")
      for count in (10**7, -1, "9")),
    (BACKBONE, {"text_config": {"num_labels": 10**7}}),
    (TEXT, {"id2label": {str(label): "x" for label in range(fields.LABELS + 1)}}),
    (BACKBONE, {"label2id": {str(label): label for label in range(fields.LABELS + 1)}}),
    *((DENOISER, {"pos_embed_max_size": side}) for side in (30_000, 0, -1, 9.5, "9")),
    (DENOISER, {"pos_embed_max_size": 1000, "attention_head_dim": 1000}),
    (DENOISER, {"num_attention_heads": 10**9}),
    *((IMAGES, {"image_std": std}) for std in ([0, 0, 0], [0.5, 0, 0.5], 0, [-1] * 3, "x")),
    (IMAGES, {"image_mean": [1e30, 0, 0]}),
    *((IMAGES, {"rescale_factor": factor}) for factor in (0, -1, 1.5, 1e300, 1e-300, True)),
    ("backbone/processor_config.json", {"image_processor": {"image_std": [0, 0, 0]}}),
    *((VAE, {"scaling_factor": factor}) for factor in (0, -1, 1e39, 1e-30, "x")),
    (VAE, {"shift_factor": 1e39}),
]  # fmt: skip


def add(path: Path, entries: dict) -> None:
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | entries))


@pytest.mark.parametrize(("file", "entries"), CASES, ids=lambda value: str(value)[:60])
def test_refused_in_one_line(file, entries, folder):
    add(folder / file, entries)
    with pytest.raises(UserError) as error:
        zoo.load(folder)
    text = str(error.value)
    assert Path(file).name in text
    assert "\n" not in text
    assert len(text) < 600


@pytest.mark.parametrize("entries", [{"num_labels": 10**7}, {"quantization_config": QUANTIZED}])
def test_text_encoders_of_clip(entries, tmp_path):
    folder = clip_files.write(tmp_path / "clip")
    add(folder / "config.json", entries)
    for load in (load_clip, lambda path: load_text_encoder(str(path))):
        with pytest.raises(UserError, match=next(iter(entries))):
            load(folder)


def test_values_of_released_models_pass():
    """Of Qwen-VL, CLIP, SD 1.5, SDXL, SD3 and SD3.5; the largest table is SD3.5 medium's."""
    path = Path("config.json")
    sd35 = {"pos_embed_max_size": 384, "num_attention_heads": 24, "attention_head_dim": 64}
    for config in (
        sd35,
        {"pos_embed_max_size": 192, "num_attention_heads": 38, "attention_head_dim": 64},
        {"scaling_factor": 0.13025, "shift_factor": None},
        {"scaling_factor": 1.5305, "shift_factor": 0.0609},
        {"image_mean": [0.5] * 3, "image_std": [0.26862954] * 3, "rescale_factor": 1 / 255},
        {"num_labels": 21_841, "quantization_config": None, "fast_tokenizer_files": None},
        [sd35, 3, "x"],
    ):
        fields.check_fields(path, config)
    side = int((fields.POSITIONS / 1536) ** 0.5)
    fields.check_fields(path, sd35 | {"pos_embed_max_size": side})
    with pytest.raises(UserError, match="table of positions"):
        fields.check_fields(path, sd35 | {"pos_embed_max_size": side + 1})
    fields.check_fields(path, {"num_labels": fields.LABELS})


def test_absent_sizes_have_the_values_of_diffusers():
    named = {"_class_name": "SD3Transformer2DModel"}
    fields.check_fields(Path("config.json"), named)
    with pytest.raises(UserError, match="got 96, 1000000 and 64"):
        fields.check_fields(Path("config.json"), named | {"num_attention_heads": 10**6})
