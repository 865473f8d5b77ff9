"""Every family against diffusers' own pipeline, opened from the folder that we wrote."""

from __future__ import annotations

import copy
from pathlib import Path

import diffusers
import pytest
import torch
from torch import Tensor

from emosym.diffusion.processes import add_noise, sample
from emosym.errors import UserError
from model_zoo.decoders.denoisers import StableDiffusion
from model_zoo.decoders.loading import load_decoder, new_decoder, save_decoder
from tests.model_zoo import make
from tests.model_zoo.decoders.predict import PROMPTS, draw, normal
from train.data.base_texts import base_texts

PIPELINES = {name: ours for name in make.DECODERS if (ours := make.decoder(name)[0].pipeline)}


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
    options = {"max_sequence_length": 24} if "3" in family else {}
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
def test_a_long_prompt_is_truncated_as_diffusers_does(family, saved):
    """On request; its CLIPs and T5 each keep their first tokens and their end of text."""
    made = pipeline(saved, family)
    denoiser = copy.deepcopy(make.decoder(family)[0])
    denoiser.truncate_prompts = True
    long = ["a dark cat " * 30, "b"]
    named = {"num_images_per_prompt": 1, "do_classifier_free_guidance": True, "device": "cpu"}
    if family.startswith("sd3"):
        named |= {"prompt_2": None, "prompt_3": None, "max_sequence_length": 24}
    wanted, _, *pooled = made.encode_prompt(long, **named)
    found = denoiser.encode_text(long)
    torch.testing.assert_close(found.tokens, wanted, atol=1e-5, rtol=1e-5)
    if pooled:
        torch.testing.assert_close(found.pooled, pooled[0], atol=1e-5, rtol=1e-5)
    assert denoiser.count_tokens(long)[0] > denoiser.prompt_window


@torch.no_grad()
def test_t5_s_window_counts_where_there_is_one():
    """A prompt that T5 reads whole is not refused; the CLIPs beside it read its beginning."""
    spec = make.DECODERS["sd3"] | {"vae": make.AUTOENCODER, "text_tokens": 200}
    denoiser = new_decoder(spec, make.tokenizer(), base_texts(200, 0), 16)[0].eval()
    clip = denoiser.text_encoder.clips[0]
    prompt = "a " * 100
    assert clip.window < denoiser.count_tokens([prompt])[0] <= denoiser.prompt_window == 200
    whole, longer = denoiser.encode_text([prompt, prompt + "b " * 20]).tokens
    assert torch.equal(whole[: clip.window], longer[: clip.window])
    assert not torch.equal(whole[clip.window :], longer[clip.window :])
    with pytest.raises(UserError, match="expected at most 200"):
        denoiser.encode_text(["a " * 220])


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
