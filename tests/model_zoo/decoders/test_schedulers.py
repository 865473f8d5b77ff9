"""Times of samplers, against the schedulers of diffusers as its pipelines call them."""

from __future__ import annotations

import diffusers
import pytest
import torch

from emosym.diffusion.processes import sample
from emosym.errors import UserError
from model_zoo.compose import compose
from model_zoo.decoders.denoisers import UNet
from model_zoo.decoders.loading import save_decoder
from model_zoo.decoders.schedulers import process_of
from model_zoo.zoo import load, save
from tests.model_zoo import make
from tests.model_zoo.decoders.predict import PROMPTS, normal

SD = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}
RELEASED = {
    "sd15": SD
    | {
        "_class_name": "PNDMScheduler",
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    },
    "sd21": SD
    | {
        "_class_name": "DDIMScheduler",
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "clip_sample": False,
    },
    "sdxl": SD
    | {
        "_class_name": "EulerDiscreteScheduler",
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "prediction_type": "epsilon",
    },
}
"""What the scheduler files of the released decoders say."""
OTHERS = {
    "DDIM": SD | {"_class_name": "DDIMScheduler", "clip_sample": False},
    "DDIM linspace": SD | {"_class_name": "DDIMScheduler", "timestep_spacing": "linspace"},
    "DDIM trailing": SD | {"_class_name": "DDIMScheduler", "timestep_spacing": "trailing"},
    "PNDM linspace": SD
    | {
        "_class_name": "PNDMScheduler",
        "timestep_spacing": "linspace",
        "skip_prk_steps": True,
    },
    "DDPM": SD | {"_class_name": "DDPMScheduler"},
    "Euler trailing": SD
    | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
    "Euler": SD | {"_class_name": "EulerDiscreteScheduler"},  # its default is linspace
    "LMS": SD | {"_class_name": "LMSDiscreteScheduler"},
    "Euler ancestral": SD | {"_class_name": "EulerAncestralDiscreteScheduler"},
}
CLEAN_END = {"sd15": False, "sd21": False, "sdxl": True, "PNDM linspace": False}
"""Whether the last step of diffusers ends without noise; where it is not named, it does."""


@pytest.mark.parametrize("name", [*RELEASED, *OTHERS])
@pytest.mark.parametrize("steps", [1, 4, 30, 50])
def test_times_are_those_of_the_named_scheduler(name, steps):
    config = (RELEASED | OTHERS)[name]
    theirs = getattr(diffusers, config["_class_name"]).from_config(config)
    theirs.set_timesteps(steps)
    expected = sorted({round(float(time)) for time in theirs.timesteps}, reverse=True)
    process = process_of(config)
    found = process.timesteps(steps)
    assert found.tolist() == [*expected, -1]
    a, b = (float(part) for part in process.coefficients(found[-1]))
    if CLEAN_END.get(name, True):
        assert (a, b) == (1, 0)
    else:
        assert a == pytest.approx(float(theirs.alphas_cumprod[0]) ** 0.5)


def test_a_last_level_can_be_named():
    for end, level in (("zero", 1.0), ("sigma_min", (1 - 0.00085) ** 0.5)):
        config = RELEASED["sdxl"] | {"final_sigmas_type": end}
        a, _ = process_of(config).coefficients(torch.tensor(-1.0))
        assert float(a) == pytest.approx(level)


@pytest.mark.parametrize("shift", [1.0, 1.15, 3.0, 5.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 10, 28, 50])
@pytest.mark.parametrize("levels", [1000, 50])
def test_a_flow_takes_the_levels_of_its_pipeline(shift, steps, levels):
    config = {
        "_class_name": "FlowMatchEulerDiscreteScheduler",
        "shift": shift,
        "num_train_timesteps": levels,
    }
    theirs = diffusers.FlowMatchEulerDiscreteScheduler.from_config(config)
    theirs.set_timesteps(steps)
    torch.testing.assert_close(process_of(config).timesteps(steps), theirs.sigmas)
    flux = process_of(config | {"timestep_spacing": "trailing"})
    theirs.set_timesteps(sigmas=torch.linspace(1, 1 / steps, steps).tolist())
    torch.testing.assert_close(flux.timesteps(steps), theirs.sigmas)
    for process in (flux, process_of(config)):
        assert process.timesteps(steps)[[0, -1]].tolist() == [1, 0]


def test_the_levels_of_sd3_by_hand():
    """Shift 3: 1/1000 becomes 0.002994, and that 0.00893 with the others."""
    levels = process_of(make.EULER).timesteps(28)
    assert levels[-2].item() == pytest.approx(0.0089286, abs=1e-6)
    assert levels[1].item() == pytest.approx(0.98738, abs=1e-5)
    flux = process_of(make.EULER | {"timestep_spacing": "trailing"}).timesteps(28)
    assert flux[-2].item() == pytest.approx(3 / 28 / (1 + 2 / 28))


@torch.no_grad()
def test_the_same_image_as_the_pipeline_of_sdxl(tmp_path):
    """Its scheduler file names Euler, whose steps to a level without noise are those of DDIM."""
    denoiser, vae = make.decoder("sdxl")
    ours = UNet(denoiser.network, denoiser.text_encoder, RELEASED["sdxl"], 16)
    save_decoder(ours, vae, tmp_path / "sdxl")
    made = diffusers.StableDiffusionXLPipeline.from_pretrained(tmp_path / "sdxl")
    made.set_progress_bar_config(disable=True)
    noise = normal(2, 4, 8, 8)
    options = {"height": 16, "width": 16, "num_inference_steps": 5, "guidance_scale": 1.0}
    expected = made(PROMPTS, latents=noise.clone(), output_type="latent", **options).images
    text = ours.encode_text(PROMPTS)
    found = sample(
        lambda latents, time: ours.predict(latents, time, text.tokens, text.pooled),
        ours.process,
        noise,
        5,
    )
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestep_spacing": "leading"}, "timestep_spacing; got leading; expected trailing or"),
        ({"timestep_spacing": 3}, "timestep_spacing; got 3"),
        ({"num_train_timesteps": 10**12}, r"num_train_timesteps; got 10+; expected 1 to 100000"),
        ({"num_train_timesteps": 0}, "num_train_timesteps; got 0"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas is not supported"),
        ({"shift": 0}, "shift; got 0"),
    ],
)
def test_levels_of_a_flow_that_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        process_of(make.EULER | changes)


def test_a_diffusion_with_too_many_levels_is_refused():
    with pytest.raises(UserError, match=r"num_train_timesteps; got 10+; expected 1 to 100000"):
        process_of(make.DDIM | {"num_train_timesteps": 10**12})


def test_the_spacing_is_chosen_when_a_model_is_composed(tmp_path):
    save(make.tiny(), tmp_path / "tiny")
    kept = compose(tmp_path / "tiny", tmp_path / "tiny").generator.denoiser
    assert kept.process.timesteps(4).tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    made = compose(tmp_path / "tiny", tmp_path / "tiny", timestep_spacing="linspace")
    levels = load(save(made, tmp_path / "made")).generator.denoiser.process.timesteps(4)
    assert levels.tolist() == pytest.approx([1, 0.8577, 0.6022, 0.0089, 0], abs=1e-4)
    with pytest.raises(UserError, match="timestep_spacing; got leading"):
        compose(tmp_path / "tiny", tmp_path / "tiny", timestep_spacing="leading")


def test_the_shipped_model_keeps_the_spacing_it_was_measured_with():
    process = load("emosym-tiny").generator.denoiser.process
    even = torch.linspace(1, 0, 17)
    torch.testing.assert_close(process.timesteps(16), 3 * even / (1 + 2 * even))
