from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.records import ImageRequest
from model_zoo import catalogue, zoo
from model_zoo.compose import compose
from model_zoo.decoders.loading import save_decoder
from tests.model_zoo import make

BACKBONE = catalogue.ROOT / "weights" / "emosym-tiny" / "backbone"


@torch.no_grad()
def answers(model, texts, pictures):
    """Return what the language head says first, where no reasoning token came between."""
    prompts = model.processor.prompts(texts, pictures)
    embedded = model.understander.backbone.embed_prompts(prompts)
    states = model.understander.backbone.read(embedded)
    return model.understander.backbone.logits(states[:, -1])


def test_a_composed_model_keeps_its_backbone_and_gets_new_heads(tmp_path):
    model = compose(BACKBONE, "emosym-tiny", reasoning_tokens=3, hidden=32, pixels=(1024, 2048))
    folder = zoo.save(model, tmp_path / "model")
    loaded, base = zoo.load(folder), zoo.load("emosym-tiny")
    assert loaded.understander.reasoner.tokens == 3
    assert loaded.understander.emotion_head.net[0].out_features == 32
    # 64 x 64 pixels of side 8 are cut to 2048 pixels: 4 x 8 patches or fewer.
    grid = loaded.processor.prompts(["why"], [make.pictures(1)]).image_grid
    assert int(grid.prod()) * 64 <= 2048
    loaded.processor.images.size = base.processor.images.size
    texts = [answers(m, ["why", "who"], [[p] for p in make.pictures(2)]) for m in (loaded, base)]
    assert torch.equal(*texts)
    start = torch.cat([loaded.understander.reasoner.context, loaded.understander.reasoner.emotion])
    assert start.std().item() == pytest.approx(0.02, rel=0.15)


def test_the_same_seed_makes_the_same_weights():
    made = [compose(BACKBONE, "emosym-tiny", reasoning_tokens=2, seed=seed) for seed in (0, 0, 1)]
    states = [model.head_state() for model in made]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(
        states[0]["understander.reasoner.context"], states[2]["understander.reasoner.context"]
    )


@pytest.mark.parametrize(
    ("family", "steps", "guidance"), [("sd15", 50, 7.5), ("sdxl", 50, 5.0), ("sd3", 28, 7.0)]
)
def test_a_decoder_comes_from_a_diffusers_folder(tmp_path, family, steps, guidance):
    denoiser, autoencoder = make.decoder(family)
    save_decoder(denoiser, autoencoder, tmp_path / "decoder")
    model = compose(BACKBONE, tmp_path / "decoder", reasoning_tokens=3, conditioner="connector")
    config = model.config
    assert (config.image_size, config.steps, config.guidance) == (16, steps, guidance)
    loaded = zoo.load(zoo.save(model, tmp_path / "model"))
    kept = loaded.generator.denoiser.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in denoiser.state_dict().items())
    assert loaded.config == config
    assert loaded.generator.denoiser.text_tokens == (256 if family == "sd3" else None)
    request = ImageRequest(prompt="a tree", affect=Affect(2.0, -1.0))
    first, again = (
        EmoSymPipeline(made).generate([request], num_inference_steps=2, seed=0)
        for made in (model, loaded)
    )
    assert first[0].size == (16, 16)
    assert first[0].tobytes() == again[0].tobytes()


def test_the_image_size_may_be_another(tmp_path):
    save_decoder(*make.decoder("sd15"), tmp_path / "decoder")
    for source, size in ((tmp_path / "decoder", 24), ("emosym-tiny", 32)):
        model = compose(BACKBONE, source, reasoning_tokens=1, image_size=size)
        assert model.config.image_size == model.generator.denoiser.image_size == size
        assert model.autoencoder.latent_shape == (4, size // 2, size // 2)


def test_a_denoiser_for_no_square_needs_a_size(tmp_path):
    save_decoder(*make.decoder("sd15"), tmp_path)
    path = tmp_path / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sample_size": [8, 12]}))
    with pytest.raises(UserError, match=r"no square native image size; got sample_size \[8, 12\]"):
        compose(BACKBONE, tmp_path, reasoning_tokens=1)
    assert compose(BACKBONE, tmp_path, reasoning_tokens=1, image_size=16).config.image_size == 16


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("emosym-tny", "unknown model 'emosym-tny'.*did you mean 'emosym-tiny'"),
        (
            "nobody/has-this",
            ".nobody/has-this. is not a folder, and no such model can be downloaded",
        ),
        ("a/b/c", "a/b/c is not a model folder"),
    ],
)
def test_a_decoder_that_is_nowhere(source, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=message):
        compose(BACKBONE, source, reasoning_tokens=1)


def test_of_a_repository_only_its_parts_are_fetched(tmp_path, monkeypatch):
    """The files of SD 1.5 on the hub: half precision, single files and checkers stay there."""
    wanted = {}

    def fetch(_, **patterns):
        wanted.update(patterns)
        return str(tmp_path)

    monkeypatch.setattr("model_zoo.hub.snapshot_download", fetch)
    with pytest.raises(UserError, match="holds no decoder"):
        compose(BACKBONE, "some/model", reasoning_tokens=1)
    files = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "tokenizer_2/merges.txt",
        "scheduler/scheduler_config.json",
        "v1-5-pruned.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "text_encoder_3/model.safetensors.index.fp16.json",
        "safety_checker/model.safetensors",
        "unet/diffusion_pytorch_model.bin",
    ]
    assert list(filter_repo_objects(files, **wanted)) == files[:5]


def test_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"bert|cannot be loaded"):
        compose(tmp_path, "emosym-tiny", reasoning_tokens=1)


@pytest.mark.parametrize("source", ["nobody/has-this-model", "no such folder", "a/b/c"])
def test_what_is_neither_a_folder_nor_on_the_hub(source, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=f"^.{source}. is not a folder, and no such model"):
        compose(source, "emosym-tiny", reasoning_tokens=1)


def test_a_model_gives_its_understander_whole(tmp_path):
    denoiser, autoencoder = make.decoder("sd15")
    save_decoder(denoiser, autoencoder, tmp_path / "decoder")
    made = compose("emosym-tiny", tmp_path / "decoder", hidden=32)
    taught, pictures = zoo.load("emosym-tiny"), make.pictures(3)
    loaded = zoo.load(zoo.save(made, tmp_path / "model"))
    seen, vectors = EmoSymPipeline(loaded).recognise(pictures)
    expected, theirs = EmoSymPipeline(taught).recognise(pictures)
    assert seen == expected
    assert (vectors == theirs).all()
    assert loaded.config.reasoning_tokens == taught.config.reasoning_tokens
    request = ImageRequest(prompt="a cat", affect=Affect(1.0, 0.0))
    side = loaded.config.image_size
    assert EmoSymPipeline(loaded).generate([request], num_inference_steps=1)[0].size == (side, side)


def test_a_taught_understander_keeps_its_number_of_tokens():
    with pytest.raises(UserError, match=r"another number of reasoning tokens; got 3; expected 8"):
        compose("emosym-tiny", "emosym-tiny", reasoning_tokens=3)
