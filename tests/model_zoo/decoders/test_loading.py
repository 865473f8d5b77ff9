"""Folders that cannot be loaded as a decoder, and details of those that can."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from emosym.errors import UserError
from model_zoo.decoders.loading import load_decoder, save_decoder
from tests.model_zoo import make
from tests.model_zoo.decoders.predict import draw, normal


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# --- what cannot be loaded


def refused(folder: Path, match: str, size: int | None = 16) -> None:
    with pytest.raises(UserError, match=match) as error:
        load_decoder(folder, size, None, torch.float32)
    assert "\n" not in str(error.value)


def test_a_family_that_is_not_supported_is_reported(tmp_path):
    refused(tmp_path, r"holds no decoder; got neither unet nor transformer; expected UNet2D")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableCascadePipeline"}')
    refused(tmp_path, r"holds no decoder; got StableCascadePipeline; expected UNet2D")
    for part, name in (("transformer", "FluxTransformer2DModel"), ("unet", "Kandinsky3UNet")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps({"_class_name": name}))
        refused(tmp_path, rf"is not supported; got {name} in {part}; expected UNet2D")


def test_what_does_not_belong_to_the_family_is_reported(family, folder):
    config = folder / make.decoder(family)[0].folder / "config.json"
    edit(folder / "text_encoder" / "config.json", architectures=["BertModel"])
    refused(folder, r"text_encoder is not supported; got BertModel; expected CLIPTextModel or")
    edit(folder / "text_encoder" / "config.json", architectures=None)
    refused(folder, r"text_encoder is not supported; got no arch")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.unlink()
    refused(folder, r"text_encoder is not supported")
    assert config.is_file()


FLOW = make.EULER | {"timestep_spacing": "trailing"}


def first(tmp_path: Path, family: str) -> Path:
    save_decoder(*make.decoder(family), tmp_path / family)
    return tmp_path / family


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("sd15", {"_class_name": "EDMEulerScheduler"}, r"unknown scheduler; got EDMEuler"),
        ("sd15", {"_class_name": None}, r"unknown scheduler; got no name"),
        ("sd15", {"prediction_type": "sample"}, r"prediction_type; got sample; expected epsilon"),
        ("sd15", {"timestep_spacing": "odd"}, r"timestep_spacing; got odd; expected leading"),
        ("sd15", {"beta_schedule": "odd"}, r"scheduler_config.json cannot be loaded; got odd"),
        ("sd15", {"steps_offset": "1"}, r"steps_offset; got '1'; expected a number"),
        ("sd15", {"rescale_betas_zero_snr": True}, r"pure noise needs a v-prediction model"),
        ("sd15", FLOW, r"scheduler does not fit a UNet2DConditionModel; got FlowMatchEuler"),
        ("sd3", make.DDIM, r"scheduler does not fit a SD3Transformer2DModel; got DDIMScheduler"),
        ("sd3", {"shift": 0}, r"shift; got 0; expected 0.01 to 100"),
        ("sd3", {"use_dynamic_shifting": True}, r"use_dynamic_shifting is not supported"),
    ],
)
def test_a_scheduler_that_is_not_understood_is_reported(tmp_path, family, changes, message):
    folder = first(tmp_path, family)
    edit(folder / "scheduler" / "scheduler_config.json", **changes)
    refused(folder, message)


def test_a_scheduler_that_is_gone_is_reported(tmp_path):
    folder = first(tmp_path, "sd3")
    (folder / "scheduler" / "scheduler_config.json").write_text("[]")
    refused(folder, r"scheduler cannot be loaded; got scheduler_config.json: not a JSON object")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    refused(folder, r"the model in .*/scheduler cannot be loaded; got .*No such file")


@pytest.mark.parametrize(
    ("family", "size", "message"),
    [
        ("sd15", 15, r"image_size does not fit .*; got 15; expected a multiple of 2$"),
        ("sd3", 18, r"got 18; expected a multiple of 4, at most 32"),
        ("sd3", 36, r"got 36; expected a multiple of 4, at most 32"),
    ],
)
def test_a_size_that_does_not_fit_is_reported(tmp_path, family, size, message):
    refused(first(tmp_path, family), message, size)


def test_a_window_where_there_is_no_t5_is_reported(tmp_path):
    folder = first(tmp_path, "sd15")
    with pytest.raises(UserError, match=r"text_tokens is set, but the decoder has no T5; got 24"):
        load_decoder(folder, 16, 24, torch.float32)


def test_encoders_of_another_family_are_reported(tmp_path):
    folder, other = first(tmp_path, "sd15"), first(tmp_path, "sd3")
    for part in ("text_encoder_2", "tokenizer_2"):
        (other / part).rename(folder / part)
    refused(folder, r"differ in width; got CLIP 16 \+ CLIP 24; expected 16")
    for part in ("text_encoder_3", "tokenizer_3"):
        (other / part).rename(folder / part)
    refused(folder, r"do not fit its denoiser; got CLIPTextModel \+ .* \+ T5EncoderModel; exp")


# --- details


def test_zero_terminal_snr_begins_at_pure_noise():
    process = make.decoder("sd21")[0].process
    times = process.timesteps(4)
    assert times.tolist() == [999, 749, 499, 249, -1]
    a, b = process.coefficients(times)
    assert (a[0].item(), b[0].item()) == (0, 1)
    plain = make.decoder("sd15")[0].process.coefficients(torch.tensor(999.0))[0]
    assert plain.item() == pytest.approx(0.0683, abs=1e-4)


def test_sdxl_may_read_the_empty_prompt(tmp_path):
    folder = first(tmp_path, "sdxl")
    edit(folder / "model_index.json", force_zeros_for_empty_prompt=False)
    read = load_decoder(folder, 16, None, torch.float32)[0].eval()
    zeros = make.decoder("sdxl")[0]
    with torch.no_grad():
        assert read.encode_text([""]).tokens.abs().max() > 0.1
        assert zeros.encode_text([""]).tokens.eq(0).all()
        assert torch.equal(read.encode_text(["a"]).tokens, zeros.encode_text(["a"]).tokens)


def test_sizes_are_told_to_sdxl():
    denoiser = copy.copy(make.decoder("sdxl")[0])
    small = draw(denoiser)
    denoiser.image_size = 1024
    assert (draw(denoiser) - small).abs().max() > 1e-4


def test_an_autoencoder_that_overflows_computes_in_float32(tmp_path):
    folder = first(tmp_path, "sdxl")
    for upcast, dtype in ((True, torch.float32), (False, torch.float16)):
        edit(folder / "vae" / "config.json", force_upcast=upcast)
        denoiser, vae = load_decoder(folder, 16, None, torch.float16)
        assert denoiser.network.dtype == torch.float16
        latents = vae.half().encode(normal(1, 3, 16, 16).half())
        assert latents.dtype == vae.decode(latents).dtype == dtype


def test_latents_normalised_by_channel_are_reported(tmp_path):
    folder = first(tmp_path, "sdxl")
    edit(folder / "vae" / "config.json", latents_mean=[0.0] * 4)
    refused(folder, r"normalised per channel is not supported")


def test_latents_of_another_kind_are_reported(tmp_path):
    """Nine channels in: a UNet for inpainting."""
    folder = first(tmp_path, "sd15")
    edit(folder / "unet" / "config.json", in_channels=9)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    state = safetensors.torch.load_file(path)
    state["conv_in.weight"] = torch.zeros(8, 9, 3, 3)
    safetensors.torch.save_file(state, path, {"format": "pt"})
    refused(folder, r"got 9 channels in and 4 out, latents of 4; expected three equal")


def test_the_published_layout_of_a_clip_tokenizer_is_read(tmp_path):
    """vocab.json and merges.txt, without tokenizer.json."""
    folder = first(tmp_path, "sd15")
    path = folder / "tokenizer" / "tokenizer.json"
    model = json.loads(path.read_text())["model"]
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(lines))
    path.unlink()
    loaded = load_decoder(folder, 16, None, torch.float32)[0].eval()
    assert torch.equal(draw(loaded), draw(make.decoder("sd15")[0]))


def test_old_weights_with_positions_are_read(tmp_path):
    """Files of transformers before version 4.31 hold `position_ids`, which are no weights."""
    for family, part in (("sd15", "text_encoder"), ("sdxl", "text_encoder_2")):
        folder = first(tmp_path, family)
        path = folder / part / "model.safetensors"
        state = safetensors.torch.load_file(path)
        inner = "" if any(n.startswith("text_model.") for n in state) else "text_model."
        state = {f"{inner}{name}": value for name, value in state.items()}
        state["text_model.embeddings.position_ids"] = torch.arange(64)[None]
        safetensors.torch.save_file(state, path, {"format": "pt"})
        loaded = load_decoder(folder, 16, None, torch.float32)[0].eval()
        assert torch.equal(draw(loaded), draw(make.decoder(family)[0]))
