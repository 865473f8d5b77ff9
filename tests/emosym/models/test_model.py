from __future__ import annotations

import copy

import pytest
import torch

from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.models.model import EmoSym, ModelConfig


def state_of(tiny: EmoSym) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in tiny.head_state().items()}


def test_head_state_is_what_no_other_library_saves(tiny):
    names = set(tiny.head_state())
    parts = {".".join(name.split(".")[:2]) for name in names}
    assert parts == {
        "understander.reasoner",
        "understander.emotion_head",
        "understander.affect_head",
        "understander.knowledge_head",
        "generator.conditioner",
    }
    others = (tiny.understander.backbone, tiny.generator.denoiser, tiny.autoencoder)
    whole = len(tiny.state_dict())
    assert len(names) + sum(len(part.state_dict()) for part in others) == whole


def test_weights_of_before_the_whitening_load_without_it(tiny):
    model, state = copy.deepcopy(tiny), state_of(tiny)
    older = {name: value for name, value in state.items() if ".whiten_" not in name}
    assert len(state) - len(older) == 4
    model.load_head_state(older)
    found = model.head_state()
    assert all(torch.equal(found[name], value) for name, value in older.items())
    for name in ("whiten_ctx", "whiten_emo"):
        matrix = found[f"generator.conditioner.{name}.matrix"]
        assert torch.equal(matrix, torch.eye(len(matrix)))
    with pytest.raises(UserError, match=r"in 1 tensors, first generator.conditioner.absent"):
        model.load_head_state(
            {name: value for name, value in older.items() if not name.endswith("absent")}
        )


def test_head_state_round_trip(tiny):
    model = copy.deepcopy(tiny)
    state = {name: value + 1 for name, value in state_of(tiny).items()}
    model.load_head_state(state)
    assert all(torch.equal(value, state[name]) for name, value in model.head_state().items())
    other = model.understander.backbone.state_dict()
    for name, value in tiny.understander.backbone.state_dict().items():
        assert torch.equal(other[name], value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda state: state.pop("generator.conditioner.norm_ctx.bias"),
            r"in 1 tensors, first generator.conditioner.norm_ctx.bias: got nothing, expected",
        ),
        (
            lambda state: state.update({"understander.extra": torch.zeros(2, 3)}),
            r"in 1 tensors, first understander.extra: got \(2, 3\), expected nothing",
        ),
        (
            lambda state: state.update({"understander.reasoner.context": torch.zeros(3, 5)}),
            r"first understander.reasoner.context: got \(3, 5\), expected \(\d+, \d+\)",
        ),
        (lambda state: state.clear(), r"in 56 tensors, first generator.conditioner.absent: "),
    ],
)
def test_heads_that_do_not_fit_are_named_and_nothing_is_loaded(tiny, damage, message):
    model, state = copy.deepcopy(tiny), state_of(tiny)
    damage(state)
    with pytest.raises(UserError, match=message):
        model.load_head_state({name: value + 1 for name, value in state.items()})
    for name, value in model.head_state().items():
        assert torch.equal(value, tiny.head_state()[name])


def test_draw_gives_pixels_in_range(tiny):
    prompts = tiny.processor.prompts(["Imagine an image."], None)
    reading = tiny.read(prompts)
    assert not reading.h_emo.requires_grad
    condition = tiny.condition(reading, ["a lake"], torch.zeros(1, 2))
    shape = tiny.autoencoder.latent_shape
    noise = 3 * torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    pixels = tiny.generate(noise, condition, num_inference_steps=1, guidance_scale=1.0)
    side = tiny.config.image_size
    assert pixels.shape == (1, 3, side, side)
    assert pixels.abs().max() <= 1
    latents = tiny.generator.sample(noise, condition, num_inference_steps=1, guidance_scale=1.0)
    with torch.no_grad():
        assert torch.equal(pixels, tiny.autoencoder.decode(latents).clamp(-1, 1))
    usual = tiny.generate(noise, condition, num_inference_steps=None, guidance_scale=None)
    stated = tiny.generate(
        noise, condition, num_inference_steps=tiny.config.steps, guidance_scale=tiny.config.guidance
    )
    assert torch.equal(usual, stated)


def test_labels_stand_in_the_order_of_emoset():
    assert ModelConfig().emotions == list(MIKELS8)
