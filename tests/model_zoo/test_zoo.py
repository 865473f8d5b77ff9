from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from emosym import files
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.models.emotion_space import EmotionSpace, Gaussian
from emosym.models.model import FORMAT, EmoSym, ModelConfig
from emosym.records import ImageRequest
from model_zoo import zoo
from model_zoo.adapters import (
    LoraSpec,
    adapter_names,
    add_lora,
    backbone_layers,
    decoder_layers,
)
from tests.model_zoo import make
from train.data.base_texts import base_texts

PARTS = ("backbone", "decoder/transformer", "decoder/text_encoder", "decoder/vae")


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return zoo.save(make.tiny(), tmp_path_factory.mktemp("zoo") / "model")


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """Return a copy of the saved model that a test may damage."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def weights(folder: Path, part: str) -> tuple[Path, dict[str, torch.Tensor]]:
    path = next((folder / part).glob("*.safetensors"))
    return path, safetensors.torch.load_file(path)


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
    awe = Gaussian(torch.rand(shape), torch.rand(shape))
    model.space = EmotionSpace({"awe": awe})
    folder = zoo.save(model, tmp_path / "model", torch.float16)
    assert (folder / "emotion_space.safetensors").is_file()
    assert zoo.load(saved).space is None
    back = zoo.load(folder).space.gaussians
    assert list(back) == ["awe"]
    assert torch.equal(back["awe"].mean, awe.mean)
    assert torch.equal(back["awe"].std, awe.std)
    identity = zoo.fingerprint(folder)
    assert zoo.fingerprint(zoo.save(model, tmp_path / "again", torch.float16)) == identity

    path, state = folder / zoo.SPACE, model.space.state_dict()
    safetensors.torch.save_file(state | {"awe.std": awe.std[1:]}, path)
    assert zoo.fingerprint(folder) != identity
    with pytest.raises(
        UserError, match=r"space does not belong to this model; .*awe.std; .*zoo space"
    ):
        zoo.load(folder)
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
    asked = model.processor.prompts(["why"], [[make.picture()]])
    found, true, base = (m.read(asked).h_emo for m in (loaded, model, make.tiny()))
    assert (found - true).abs().max() < 1e-4
    assert (found - base).abs().max() > 1e-2
    noise = torch.randn(1, *model.autoencoder.latent_shape, generator=rng)
    drawn = [
        m.generator.sample(
            noise,
            m.condition(m.read(asked), ["a"], torch.zeros(1, 2)),
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
    assert "emosym-tiny" in zoo.members()
    for name in zoo.members():
        spec = zoo.preset(name)
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


def test_what_is_not_a_model_is_never_replaced(tmp_path):
    diary = tmp_path / "diary.txt"
    diary.write_text("dear diary")
    for target in (tmp_path, diary):
        with pytest.raises(UserError, match="exists and is not a model folder"):
            zoo.save(make.tiny(), target)
    assert diary.read_text() == "dear diary"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert zoo.folder_of(zoo.save(make.tiny(), empty)) == empty


# --- what cannot be loaded


def test_unknown_names_suggest():
    with pytest.raises(UserError, match=r"unknown model 'emosym-tny'.*did you mean 'emosym-tiny'"):
        zoo.load("emosym-tny")
    with pytest.raises(UserError, match=r"unknown model 'emosym-tny'"):
        zoo.preset("emosym-tny")


def test_a_folder_that_is_not_a_model(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            UserError, match=r"is not a model folder; expected a folder with emosym"
        ):
            zoo.load(path)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"do not fit their model in 1 tensors; got {name}: missing"),
        ("extra", r"do not fit their model in 1 tensors; got stray: not of this model"),
        ("shape", r"do not fit their model in 1 tensors; got {name}: \(3, 5\), not \("),
        ("short", r"cannot be loaded"),
        ("gone", r"cannot be loaded; got Error no file named .*\.safetensors"),
        ("config", r"cannot be loaded; got .*config.json' is not a valid JSON"),
    ],
)
def test_weights_that_do_not_fit_are_one_clear_line(part, damage, message, folder, capfd):
    path, state = weights(folder, part)
    name = next(n for n in sorted(state) if "norm" in n and n.endswith("weight"))
    if damage == "missing":
        del state[name]
    elif damage == "extra":
        state["stray"] = torch.zeros(2)
    elif damage == "shape":
        state[name] = torch.zeros(3, 5)
    if damage in ("missing", "extra", "shape"):
        safetensors.torch.save_file(state, path, {"format": "pt"})
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-1000])
    elif damage == "gone":
        path.unlink()
    else:
        (folder / part / "config.json").write_text("{")
    expected = message.format(name=name.replace("model.layers", "model.language_model.layers"))
    with pytest.raises(UserError, match=expected) as error:
        zoo.load(folder)
    assert f"{folder}/{part}" in str(error.value)
    assert "\n" not in str(error.value)
    assert "MISSING" not in capfd.readouterr().err


def test_a_config_of_another_size_is_told(folder):
    path = folder / "backbone" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["intermediate_size"] = 96
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"tensors; got .*mlp.*: \(\d+, \d+\), not \("):
        zoo.load(folder)


def test_a_config_of_another_type_is_told(folder):
    path = folder / "backbone" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["hidden_size"] = "wide"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"backbone cannot be loaded; got .*hidden_size"):
        zoo.load(folder)


def edit(folder: Path, **changes) -> None:
    about = json.loads((folder / zoo.CONFIG).read_text())
    about["model"] |= changes
    (folder / zoo.CONFIG).write_text(json.dumps(about))


def test_heads_of_another_size_are_told(folder):
    edit(folder, reasoning_tokens=3)
    with pytest.raises(UserError, match=r"reasoner.context: got \(\d+, \d+\), expected \(3, \d+\)"):
        zoo.load(folder)


def test_heads_that_are_gone_are_told(folder):
    (folder / zoo.HEADS).unlink()
    with pytest.raises(UserError, match=r"heads.safetensors cannot be loaded"):
        zoo.load(folder)


def test_a_newer_format_is_refused_whatever_else_it_says(folder):
    edit(folder, format=FORMAT + 1, brand_new_option=True)
    with pytest.raises(
        UserError, match=rf"newer version; got format {FORMAT + 1}; expected at most"
    ):
        zoo.load(folder)


def test_an_older_format_is_refused(folder):
    edit(folder, format=FORMAT - 1, shift=1.0)
    with pytest.raises(UserError, match=rf"older version; got format {FORMAT - 1}; expected"):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read; got JSONDecodeError"),
        ("[]", "cannot be read"),
        ("[" * 100_000, "emosym.json cannot be read; got RecursionError"),
        ("{}", "cannot be read; got KeyError 'model'"),
        ('{"model": {"format": "x"}}', "cannot be read"),
    ],
)
def test_an_unreadable_description_is_told(folder, text, message):
    (folder / zoo.CONFIG).write_text(text)
    with pytest.raises(UserError, match=message):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("image_size", 0, r"emosym.json: model: image_size; got 0; expected 8 to 8192"),
        ("image_size", 63, r"image_size does not fit the decoder of .*decoder; got 63; .* of 8"),
        ("image_size", 136, r"got 136; expected a multiple of 8, at most 128"),
        ("image_size", "big", r"emosym.json: model.image_size: got 'big'; expected an integer"),
        ("reasoning_tokens", -1, r"emosym.json: model: reasoning_tokens; got -1"),
        ("hidden", -1, r"emosym.json: model: hidden; got -1"),
        ("guidance", float("nan"), r"emosym.json: model.guidance: got 'NaN'; expected a finite"),
        ("conditioner", "wrd", r"emosym.json: model.conditioner: got 'wrd'; expected"),
        ("connector_layers", 0, r"emosym.json: model: connector_layers; got 0; expected 1 to 64"),
        ("steps", 10**12, r"emosym.json: model: steps; got 10+; expected 1 to 1000"),
        ("guidance", -1, r"emosym.json: model: guidance; got -1"),
        ("emotions", [], r"emosym.json: model: emotions; got \[\]; expected some of amusement"),
        ("emotions", ["awe", "awe"], r"emosym.json: model: emotions; .*each once"),
        ("emotions", ["joy"], r"emosym.json: model: emotions; got \['joy'\]"),
    ],
)
def test_a_description_that_makes_no_model_is_told(folder, key, value, told):
    edit(folder, **{key: value})
    with pytest.raises(UserError, match=told):
        zoo.load(folder)


def test_a_window_without_room_is_told(folder):
    about = json.loads((folder / zoo.CONFIG).read_text()) | {"text_tokens": -1}
    (folder / zoo.CONFIG).write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"emosym.json: text_tokens; got -1; expected 1 to 4096"):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, r"preprocessor_config.json: patch_size does not fit config.json; got 14; expected 8"),
        ({"patch_size": "8"}, r"preprocessor_config.json: patch_size .*; got '8'; expected 8"),
        ({"merge_size": 1}, r"preprocessor_config.json: merge_size .*; got 1; expected 2"),
        ({"image_mean": []}, r"backbone cannot be loaded; got mean must have 3 elements"),
        ({"resample": 99}, r"backbone cannot be loaded; got Unknown resampling filter"),
    ],
)
def test_an_image_processor_that_does_not_fit_is_told(folder, changes, told):
    path = folder / "backbone" / "preprocessor_config.json"
    path.write_text(json.dumps(changes and json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=told):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("backbone/tokenizer.json", None, "no tokenizer.json in it"),
        ("decoder/tokenizer/tokenizer.json", None, "no tokenizer.json in it"),
        ("backbone/tokenizer_config.json", None, r"got \d+ tokens for a model of \d+"),
        ("decoder/tokenizer/tokenizer_config.json", None, "decoder/tokenizer cannot be loaded"),
        ("backbone/chat_template.jinja", None, "chat_template is not set"),
        ("backbone/chat_template.jinja", "{% for", "cannot be loaded; got"),
        ("backbone/config.json", "[" * 100_000, "maximum recursion depth"),
    ],
)
def test_a_processor_with_parts_missing_is_told(folder, file, text, told):
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(UserError, match=told) as error:
        zoo.load(folder)
    assert str((folder / file).parent) in str(error.value)


def test_an_unknown_key_is_told_with_the_nearest(folder):
    edit(folder, hiden=3)
    with pytest.raises(UserError, match=r"hiden: unknown key; did you mean 'hidden'\?"):
        zoo.load(folder)
