from __future__ import annotations

import copy

import pytest
import safetensors.torch
import torch

from emosym import files
from emosym.errors import UserError
from emosym.files import temporary_for
from emosym.inference.pipeline import EmoSymPipeline
from emosym.models.emotion_space import EmotionSpace, Gaussian
from emosym.models.model import FORMAT, EmoSym, ModelConfig
from emosym.records import ImageRequest
from model_zoo import catalogue, zoo
from model_zoo.adapters import (
    LoraSpec,
    adapter_names,
    add_lora,
    backbone_layers,
    decoder_layers,
)
from tests.model_zoo import make
from tests.model_zoo.model_folder import PARTS, edit, weights
from train.data.base_texts import base_texts


def same(a: EmoSym, b: EmoSym) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


# --- there and back


def test_a_saved_model_comes_back_bit_for_bit(saved):
    model = zoo.load(saved)
    assert same(model, make.tiny())
    assert model.config == make.tiny().config
    assert not model.training
    image = make.picture()
    first, again = (EmoSymPipeline(m, answer_tokens=4) for m in (make.tiny(), model))
    assert first.understand([image]) == again.understand([image])


def test_saving_changes_nothing_and_is_a_function_of_the_model(saved, tmp_path):
    before = copy.deepcopy(make.tiny().state_dict())
    again = zoo.save(make.tiny(), tmp_path / "a" / "b" / "model")
    assert zoo.model_files(again) == zoo.model_files(saved)
    assert zoo.fingerprint(again) == zoo.fingerprint(saved)
    assert all(torch.equal(v, before[n]) for n, v in make.tiny().state_dict().items())
    assert sorted(p.name for p in again.iterdir()) == [
        "backbone",
        "decoder",
        "emosym.json",
        "heads.safetensors",
    ]


def test_what_a_killed_save_left_is_swept(tmp_path):
    left = temporary_for(tmp_path / "model")
    left.mkdir()
    (left / "heads.safetensors").write_bytes(bytes(1000))
    other = temporary_for(tmp_path / "another")
    other.mkdir()
    zoo.save(make.tiny(), tmp_path / "model")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.name, "model"])


def test_half_precision_halves_the_files_and_stays_near(saved, tmp_path):
    small = zoo.save(make.tiny(), tmp_path / "half", torch.float16)
    sizes = [
        sum(f.stat().st_size for f in where.rglob("*.safetensors")) for where in (saved, small)
    ]
    assert 0.49 < sizes[1] / sizes[0] < 0.53
    assert next(make.tiny().parameters()).dtype == torch.float32
    model = zoo.load(small)
    for name, value in model.state_dict().items():
        true = make.tiny().state_dict()[name]
        assert value.dtype == true.dtype == torch.float32
        assert (value - true).abs().max() <= 2**-11 * true.abs().max() + 1e-7
        if value.is_floating_point():
            assert torch.equal(value, true.half().float())
    assert {p.dtype for p in zoo.load(small, torch.bfloat16).parameters()} == {torch.bfloat16}


def test_the_fingerprint_sees_every_weight(folder, saved):
    for part in (*PARTS, "."):
        path, state = weights(folder, part)
        name = sorted(state)[-1]
        state[name].view(-1)[0] += 1
        before = zoo.fingerprint(folder)
        safetensors.torch.save_file(state, path, {"format": "pt"})
        assert zoo.fingerprint(folder) != before


def test_the_fingerprint_sees_every_file_but_the_card(folder):
    whole = zoo.fingerprint(folder)
    for name in zoo.model_files(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data + b" ")
        assert zoo.fingerprint(folder) != whole, name
        (folder / name).write_bytes(data)
    for name in ("README.md", ".DS_Store"):
        (folder / name).write_text("not the model")
    assert zoo.fingerprint(folder) == whole
    edit(folder, emotions=make.tiny().config.emotions[::-1])
    assert zoo.fingerprint(folder) != whole


def test_an_emotion_space_is_part_of_the_model(saved, tmp_path):
    model = copy.deepcopy(make.tiny())
    shape = (1 + model.config.reasoning_tokens, model.understander.backbone.width)
    awe = Gaussian(torch.rand(shape), torch.rand(5, *shape))
    model.space = EmotionSpace({"awe": awe})
    folder = zoo.save(model, tmp_path / "model", torch.float16)
    assert (folder / "emotion_space.safetensors").is_file()
    assert zoo.load(saved).space is None
    back = zoo.load(folder).space.gaussians
    assert list(back) == ["awe"]
    assert torch.equal(back["awe"].mean, awe.mean)
    assert torch.equal(back["awe"].factor, awe.factor)
    identity = zoo.fingerprint(folder)
    assert zoo.fingerprint(zoo.save(model, tmp_path / "again", torch.float16)) == identity

    path, state = folder / zoo.EMOTION_SPACE, model.space.state_dict()
    safetensors.torch.save_file(state | {"awe.factor": awe.factor[:, 1:].contiguous()}, path)
    assert zoo.fingerprint(folder) != identity
    with pytest.raises(
        UserError, match=r"space does not belong to this model; .*awe.factor; .*zoo space"
    ):
        zoo.load(folder)
    assert zoo.load(folder, with_space=False).space is None
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"emotion_space.safetensors cannot be loaded"):
        zoo.load(folder)


def test_a_used_model_saves_the_files_it_came_from(saved, tmp_path):
    first = zoo.save(zoo.load(saved), tmp_path / "first")
    model = EmoSymPipeline(zoo.load(first), answer_tokens=2)
    model.understand([make.picture()] * 2)
    model.generate([ImageRequest(prompt="a tree")], num_inference_steps=1)
    again = zoo.save(model.model, tmp_path / "elsewhere")
    assert zoo.model_files(again) == zoo.model_files(first)
    assert str(tmp_path) not in "".join(p.read_text() for p in again.rglob("*.json"))


def test_adapters_are_merged_into_what_is_saved(tmp_path):
    model = copy.deepcopy(make.tiny())
    backbone, denoiser = model.understander.backbone, model.generator.denoiser
    add_lora(backbone, LoraSpec(layers=backbone_layers(backbone), rank=2, alpha=4))
    add_lora(denoiser, LoraSpec(layers=decoder_layers(denoiser), rank=2, alpha=4))
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name in adapter_names(model):
            parameter = model.get_parameter(name)
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    live = copy.deepcopy(model.state_dict())
    loaded = zoo.load(zoo.save(model, tmp_path / "model"))
    assert adapter_names(loaded) == set()
    assert list(loaded.state_dict()) == list(make.tiny().state_dict())
    assert all(torch.equal(v, live[n]) for n, v in model.state_dict().items())
    assert adapter_names(model)
    prompts = model.processor.prompts(["why"], [[make.picture()]])
    found, true, base = (m.read(prompts).h_emo for m in (loaded, model, make.tiny()))
    assert (found - true).abs().max() < 1e-4
    assert (found - base).abs().max() > 1e-2
    noise = torch.randn(1, *model.autoencoder.latent_shape, generator=rng)
    drawn = [
        m.generator.sample(
            noise,
            m.condition(m.read(prompts), ["a"], torch.zeros(1, 2)),
            num_inference_steps=1,
            guidance_scale=1.0,
        )
        for m in (loaded, model, make.tiny())
    ]
    assert (drawn[0] - drawn[1]).abs().max() < 1e-3
    assert (drawn[0] - drawn[2]).abs().max() > 1e-2


def test_a_build_is_a_function_of_its_seed():
    first, same_seed, other = (zoo.build("emosym-tiny", base_texts(60, 0), s) for s in (0, 0, 1))
    assert same(first, same_seed)
    assert not same(first, other)
    size = sum(p.numel() for p in first.parameters())
    assert size * 2 <= 20 * 2**20


def test_every_member_has_a_preset_that_makes_sense():
    assert "emosym-tiny" in catalogue.members()
    for name in catalogue.members():
        spec = catalogue.preset(name)
        assert spec["description"]
        assert spec["train"].startswith(("make ", "python -m train run "))
        assert ModelConfig(**spec["model"]).format == FORMAT


def test_a_member_without_weights_says_how_to_train_them():
    with pytest.raises(UserError, match=r"not in this installation; got no .*; train them with `p"):
        zoo.load("emosym-tiny-unet")


# --- nothing half-written


class Stop(BaseException):
    """Stands for a kill in the middle."""


@pytest.mark.parametrize(
    ("module", "at"), [(zoo, "save_decoder"), (files, "sync"), (zoo, "replace_folder")]
)
def test_an_interrupted_save_leaves_the_old_folder(module, at, folder, monkeypatch):
    def stop(*_):
        raise Stop

    before = zoo.fingerprint(folder)
    changed = copy.deepcopy(make.tiny())
    with torch.no_grad():
        changed.understander.reasoner.emotion += 1
    with monkeypatch.context() as patch:
        patch.setattr(module, at, stop)
        with pytest.raises(Stop):
            zoo.save(changed, folder)
    assert zoo.fingerprint(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    zoo.save(changed, folder)
    assert same(zoo.load(folder), changed)
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_failed_rename_puts_the_old_folder_back(folder, monkeypatch):
    rename, calls = files.os.rename, []

    def second_fails(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError("no space left on device")
        rename(source, target)

    before = zoo.fingerprint(folder)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "rename", second_fails)
        with pytest.raises(UserError, match="cannot be written; got no space left on device"):
            zoo.save(make.tiny(), folder)
    assert zoo.fingerprint(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_files_of_a_user_in_a_model_folder_are_never_deleted(tmp_path):
    tiny = make.tiny()
    folder = zoo.save(tiny, tmp_path / "model")
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds files that are no part of a model; got notes.txt"):
        zoo.save(tiny, folder)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(UserError, match=r"cannot be written; got .*Not a directory"):
        zoo.save(tiny, folder / "notes.txt" / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_a_killed_writer_left_in_a_model_folder_does_not_stop_the_next(tmp_path):
    """A run writes the card into the folder after the weights, and may be killed between."""
    folder = zoo.save(make.tiny(), tmp_path / "model")
    (folder / ".README.md.21ad7625.tmp").write_text("half a card")
    zoo.load(folder)
    zoo.save(make.tiny(), folder)
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]
    (folder / ".notes.txt.21ad7625.tmp").write_text("mine")
    with pytest.raises(UserError, match=r"no part of a model; got \.notes\.txt\.21ad7625\.tmp"):
        zoo.save(make.tiny(), folder)


def test_what_is_not_a_model_is_never_replaced(tmp_path):
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    for target in (tmp_path, diary):
        with pytest.raises(UserError, match="exists and is not a model folder"):
            zoo.save(make.tiny(), target)
    assert diary.read_text() == "dear diary"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert catalogue.folder_of(zoo.save(make.tiny(), empty)) == empty
