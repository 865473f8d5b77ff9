"""Every family against diffusers' own pipeline, opened from the folder that we wrote."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import diffusers
import pytest
import safetensors.torch
import torch
from torch import Tensor

from emosym.diffusion.processes import add_noise, sample
from emosym.errors import UserError
from model_zoo.decoders.denoisers import StableDiffusion
from model_zoo.decoders.loading import load_decoder, save_decoder
from tests.model_zoo import make

PIPELINES = {name: ours for name in make.DECODERS if (ours := make.decoder(name)[0].pipeline)}
PROMPTS = ["a red house in the snow", "two dark cats"]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=make.DECODERS)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def saved(family, tmp_path_factory) -> Path:
    """Return the folder of a family's decoder. Do not change it."""
    folder = tmp_path_factory.mktemp("decoder") / family
    save_decoder(*make.decoder(family), folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """Return a copy of the folder that may be changed."""
    copied = tmp_path / "decoder"
    for path in saved.rglob("*"):
        if path.is_file():
            target = copied / path.relative_to(saved)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return copied


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def pipeline(saved: Path, family: str):
    if family not in PIPELINES:
        pytest.skip("diffusers has no such pipeline")
    absent = dict.fromkeys(("text_encoder_3", "tokenizer_3")) if "without" in family else {}
    made = getattr(diffusers, PIPELINES[family]).from_pretrained(saved, **absent)
    made.set_progress_bar_config(disable=True)
    if family == "sd3":
        made.tokenizer_3.padding_side = "right"  # ours pads left for the chat, T5's own right
    return made


def theirs(made, family: str) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return tokens with and without prompt, pooled with and without, as diffusers encodes them."""
    named = {"num_images_per_prompt": 1, "do_classifier_free_guidance": True, "device": "cpu"}
    if family.startswith("sd3"):
        named |= {"prompt_2": None, "prompt_3": None, "max_sequence_length": 24}
    said = made.encode_prompt(PROMPTS, **named)
    return said if len(said) == 4 else (*said, None, None)


# --- equal to diffusers


@torch.no_grad()
def test_prompts_are_encoded_as_diffusers_does(family, saved):
    wanted, free, pooled, free_pooled = theirs(pipeline(saved, family), family)
    denoiser = make.decoder(family)[0]
    for prompts, tokens, whole in ((PROMPTS, wanted, pooled), (["", ""], free, free_pooled)):
        found = denoiser.encode_text(prompts)
        torch.testing.assert_close(found.tokens, tokens, atol=1e-5, rtol=1e-5)
        if whole is None:
            assert found.pooled.shape == (2, 0)
        else:
            torch.testing.assert_close(found.pooled, whole, atol=1e-5, rtol=1e-5)
        assert found.tokens.shape[-1] == denoiser.token_width
        assert found.pooled.shape[-1] == denoiser.pooled_width
    assert (wanted - free).abs().max() > 1e-2


@torch.no_grad()
def test_sampling_is_that_of_diffusers(family, saved):
    made = pipeline(saved, family)
    noise = normal(2, 4, 8, 8)
    options = {"sigmas": [1.0, 0.75, 0.5, 0.25], "max_sequence_length": 24} if "3" in family else {}
    expected = made(
        PROMPTS,
        height=16,
        width=16,
        num_inference_steps=4,
        guidance_scale=3.0,
        latents=noise,
        output_type="latent",
        **options,
    ).images
    denoiser = make.decoder(family)[0]
    wanted, free = denoiser.encode_text(PROMPTS), denoiser.encode_text([""] * 2)

    def guided(latents: Tensor, time: Tensor) -> Tensor:
        yes, no = (denoiser.predict(latents, time, t.tokens, t.pooled) for t in (wanted, free))
        return no + 3.0 * (yes - no)

    found = sample(guided, denoiser.process, noise, 4)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (found - noise).abs().max() > 0.1


@torch.no_grad()
def test_the_autoencoder_is_that_of_diffusers(family, saved):
    made, vae = pipeline(saved, family).vae, make.decoder(family)[1]
    pixels = normal(2, 3, 16, 16)
    latents = vae.encode(pixels)
    assert latents.shape[1:] == vae.latent_shape == (4, 8, 8)
    torch.testing.assert_close(latents, 0.5 * made.encode(pixels).latent_dist.mode())
    torch.testing.assert_close(vae.decode(latents), made.decode(latents / 0.5).sample)


# --- contracts


@torch.no_grad()
def test_what_is_saved_comes_back(family, saved, tmp_path):
    denoiser, vae = make.decoder(family)
    loaded, loaded_vae = load_decoder(saved, None, denoiser.text_tokens, torch.float32)
    assert loaded_vae.image_size == loaded.image_size == 16
    for ours, theirs in ((denoiser, loaded), (vae, loaded_vae)):
        before, after = ours.state_dict(), theirs.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert draw(loaded.eval()).equal(draw(denoiser))
    once, twice = tmp_path / "once", tmp_path / "twice"
    save_decoder(loaded, loaded_vae, once)
    save_decoder(*load_decoder(once, 16, denoiser.text_tokens, torch.float32), twice)
    files = {path.relative_to(once) for path in once.rglob("*") if path.is_file()}
    assert files == {path.relative_to(saved) for path in saved.rglob("*") if path.is_file()}
    assert all((once / file).read_bytes() == (twice / file).read_bytes() for file in files)
    assert str(tmp_path) not in "".join(path.read_text() for path in twice.rglob("*.json"))


@torch.no_grad()
def draw(denoiser: StableDiffusion) -> Tensor:
    text = denoiser.encode_text(PROMPTS)
    times = denoiser.process.times(torch.tensor([0.2, 0.9]))
    return denoiser.predict(normal(2, 4, 8, 8), times, text.tokens, text.pooled)


@torch.no_grad()
def test_more_conditioning_tokens_are_heard(family):
    denoiser = make.decoder(family)[0]
    text = denoiser.encode_text(PROMPTS)
    more = torch.cat([text.tokens, normal(2, 3, denoiser.token_width)], 1)
    times = denoiser.process.times(torch.tensor([0.2, 0.9]))
    found = denoiser.predict(normal(2, 4, 8, 8), times, more, text.pooled)
    assert (found - draw(denoiser)).abs().amax((1, 2, 3)).min() > 1e-4


def loss_of(denoiser: StableDiffusion) -> Tensor:
    with torch.no_grad():
        text = denoiser.encode_text(PROMPTS)
    process = denoiser.process
    clean, noise = normal(2, 4, 8, 8, seed=1), normal(2, 4, 8, 8, seed=2)
    times = process.times(torch.tensor([0.3, 0.8]))
    output = denoiser.predict(
        add_noise(process, clean, noise, times), times, text.tokens, text.pooled
    )
    return (output - process.target(clean, noise, times)).square().mean()


def test_a_step_of_training_lowers_the_loss(family):
    denoiser = copy.deepcopy(make.decoder(family)[0])
    optimizer = torch.optim.AdamW(denoiser.network.parameters(), 1e-3)
    losses = []
    for _ in range(3):
        loss = loss_of(denoiser)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]


def test_recomputed_layers_give_the_same_gradients(family):
    kept, recomputed = (copy.deepcopy(make.decoder(family)[0]).train() for _ in range(2))
    recomputed.checkpoint_gradients()
    saved: dict[StableDiffusion, int] = {}
    for denoiser in (kept, recomputed):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x
        ):
            loss = loss_of(denoiser)
        saved[denoiser] = sum(sizes)
        loss.backward()
    assert saved[recomputed] < 0.6 * saved[kept]
    for ours, theirs in zip(
        kept.network.parameters(), recomputed.network.parameters(), strict=True
    ):
        if ours.grad is None:
            assert theirs.grad is None
        else:
            torch.testing.assert_close(ours.grad, theirs.grad)


# --- texts


def test_a_long_prompt_is_refused_not_cut(family):
    denoiser = make.decoder(family)[0]
    with pytest.raises(UserError, match=r"'a dark cat .*too long .* got \d+ tokens; expected at"):
        denoiser.encode_text(["b", "a dark cat " * 30])


@torch.no_grad()
def test_a_long_knowledge_text_is_read_whole(family):
    denoiser = make.decoder(family)[0]
    short, long = "a dark cat", "a dark cat " * 30
    both = denoiser.pool_text([long + "barks", short, long])
    assert both.shape == (3, denoiser.knowledge_width)
    torch.testing.assert_close(both[1:2], denoiser.pool_text([short]), atol=1e-5, rtol=1e-5)
    assert (both[0] - both[2]).abs().max() > 1e-4
    pooled = denoiser.encode_text([short]).pooled
    if denoiser.pooled_width:
        torch.testing.assert_close(both[1:2], pooled, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_text_of_two_windows_is_their_mean():
    """64 positions hold 62 words of one token."""
    clip = make.decoder("sd15")[0].text_encoder.clips[0]
    word = "a"
    assert len(clip.tokenizer(word).input_ids) == 3
    whole, rest, both = clip.pool([" ".join([word] * n) for n in (62, 5, 67)])
    torch.testing.assert_close(both, (whole + rest) / 2, atol=1e-5, rtol=1e-5)
    assert (whole - rest).abs().max() > 1e-3


def test_a_clip_tokenizer_knows_every_byte_and_is_a_function_of_its_corpus():
    first, again = (make.decoder(name)[0].text_encoder.clips[0] for name in ("sd15", "sd21"))
    assert first.tokenizer.get_vocab() == again.tokenizer.get_vocab()
    text = "été à 12 日本 🙂"
    ids = first.tokenizer(text, add_special_tokens=False).input_ids
    assert first.tokenizer.eos_token_id not in ids
    assert first.tokenizer.decode(ids).replace(" ", "") == text.replace(" ", "")


# --- what cannot be loaded


def refused(folder: Path, match: str, size: int | None = 16) -> None:
    with pytest.raises(UserError, match=match) as error:
        load_decoder(folder, size, None, torch.float32)
    assert "\n" not in str(error.value)


def test_a_family_that_is_not_supported_is_told(tmp_path):
    refused(tmp_path, r"holds no decoder; got neither unet nor transformer; expected UNet2D")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableCascadePipeline"}')
    refused(tmp_path, r"holds no decoder; got StableCascadePipeline; expected UNet2D")
    for part, name in (("transformer", "FluxTransformer2DModel"), ("unet", "Kandinsky3UNet")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps({"_class_name": name}))
        refused(tmp_path, rf"family that is not supported; got {name} in {part}; expected UNet2D")


def test_what_does_not_belong_to_the_family_is_told(family, folder):
    config = folder / make.decoder(family)[0].folder / "config.json"
    edit(folder / "text_encoder" / "config.json", architectures=["BertModel"])
    refused(folder, r"text_encoder is not supported; got BertModel; expected CLIPTextModel or")
    edit(folder / "text_encoder" / "config.json", architectures=None)
    refused(folder, r"text_encoder is not supported; got no arch")
    scheduler = folder / "scheduler" / "scheduler_config.json"
    scheduler.unlink()
    refused(folder, r"text_encoder is not supported")
    assert config.is_file()


def first(tmp_path: Path, family: str) -> Path:
    save_decoder(*make.decoder(family), tmp_path / family)
    return tmp_path / family


@pytest.mark.parametrize(
    ("family", "changes", "told"),
    [
        ("sd15", {"_class_name": "EDMEulerScheduler"}, r"an unknown scheduler; got EDMEuler"),
        ("sd15", {"_class_name": None}, r"an unknown scheduler; got no name"),
        ("sd15", {"prediction_type": "sample"}, r"prediction_type; got sample; expected epsilon"),
        ("sd15", {"timestep_spacing": "odd"}, r"timestep_spacing; got odd; expected leading"),
        ("sd15", {"beta_schedule": "odd"}, r"scheduler_config.json cannot be loaded; got odd"),
        ("sd15", {"steps_offset": "1"}, r"steps_offset; got '1'; expected a number"),
        ("sd15", {"rescale_betas_zero_snr": True}, r"pure noise needs a v-prediction model"),
        ("sd15", make.EULER, r"UNet2DConditionModel with a scheduler .*; got FlowMatchEuler"),
        ("sd3", make.DDIM, r"SD3Transformer2DModel with a scheduler .*; got DDIMScheduler"),
        ("sd3", {"shift": 0}, r"shift; got 0; expected 0.01 to 100"),
        ("sd3", {"use_dynamic_shifting": True}, r"use_dynamic_shifting is not supported"),
    ],
)
def test_a_scheduler_that_is_not_understood_is_told(tmp_path, family, changes, told):
    folder = first(tmp_path, family)
    edit(folder / "scheduler" / "scheduler_config.json", **changes)
    refused(folder, told)


def test_a_scheduler_that_is_gone_is_told(tmp_path):
    folder = first(tmp_path, "sd3")
    (folder / "scheduler" / "scheduler_config.json").write_text("[]")
    refused(folder, r"scheduler cannot be loaded; got scheduler_config.json is no mapping")
    (folder / "scheduler" / "scheduler_config.json").unlink()
    refused(folder, r"the model in .*/scheduler cannot be loaded; got .*No such file")


@pytest.mark.parametrize(
    ("family", "size", "told"),
    [
        ("sd15", 15, r"image_size does not fit .*; got 15; expected a multiple of 2$"),
        ("sd3", 18, r"got 18; expected a multiple of 4, at most 32"),
        ("sd3", 36, r"got 36; expected a multiple of 4, at most 32"),
    ],
)
def test_a_size_that_does_not_fit_is_told(tmp_path, family, size, told):
    refused(first(tmp_path, family), told, size)


def test_a_window_where_there_is_no_t5_is_told(tmp_path):
    folder = first(tmp_path, "sd15")
    with pytest.raises(UserError, match=r"text_tokens is the window of T5, .*; got 24"):
        load_decoder(folder, 16, 24, torch.float32)


def test_encoders_of_another_family_are_told(tmp_path):
    folder, other = first(tmp_path, "sd15"), first(tmp_path, "sd3")
    for part in ("text_encoder_2", "tokenizer_2"):
        (other / part).rename(folder / part)
    refused(folder, r"differ in width; got CLIP 16 \+ CLIP 24; expected 16")
    for part in ("text_encoder_3", "tokenizer_3"):
        (other / part).rename(folder / part)
    refused(folder, r"none of those of its family; got CLIPTextModel \+ .* \+ T5EncoderModel; exp")


# --- details


@pytest.mark.parametrize("spacing", ["leading", "linspace"])
def test_linspace_is_a_sampler_s_choice(tmp_path, spacing):
    folder = first(tmp_path, "sd15")
    edit(
        folder / "scheduler" / "scheduler_config.json",
        _class_name="EulerDiscreteScheduler",
        timestep_spacing=spacing,
        use_karras_sigmas=True,
    )
    process = load_decoder(folder, 16, None, torch.float32)[0].process
    assert process.timesteps(4).tolist() == [751, 501, 251, 1, -1]


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


def test_latents_normalised_by_channel_are_told(tmp_path):
    folder = first(tmp_path, "sdxl")
    edit(folder / "vae" / "config.json", latents_mean=[0.0] * 4)
    refused(folder, r"normalised channel by channel is not supported")


def test_latents_of_another_kind_are_told(tmp_path):
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
