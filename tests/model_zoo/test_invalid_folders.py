"""Model folders that `zoo.load` refuses, and the error messages."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch

from emosym.errors import UserError
from emosym.models.model import FORMAT
from model_zoo import catalogue, zoo
from tests.model_zoo.model_folder import PARTS, edit, weights


def test_unknown_names_suggest():
    with pytest.raises(UserError, match=r"unknown model 'emosym-tny'.*did you mean 'emosym-tiny'"):
        zoo.load("emosym-tny")
    with pytest.raises(UserError, match=r"unknown model 'emosym-tny'"):
        catalogue.preset("emosym-tny")


def test_a_folder_that_is_not_a_model(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(
            UserError, match=r"is not a model folder; expected a folder with emosym"
        ):
            zoo.load(path)


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-3B-Instruct", "transformers"])
def test_a_backbone_is_to_be_composed(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers/config.json").write_text('{"model_type": "qwen2_5_vl"}')
    with pytest.raises(UserError) as caught:
        zoo.load(name)
    assert str(caught.value) == (
        f"{name} is not a model folder; expected a folder with emosym.json, or one of"
        f" {', '.join(catalogue.members())}; a run's model is in its folder `model`; of a Qwen-VL"
        " backbone make one with `emosym zoo compose FOLDER --backbone NAME`"
    )


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"do not fit their model in 1 tensors; got {name}: missing"),
        ("extra", r"do not fit their model in 1 tensors; got stray: not of this model"),
        ("shape", r"do not fit their model in 1 tensors; got {name}: \(3, 5\), not \("),
        ("short", r"cannot be loaded"),
        ("gone", r"cannot be loaded; got Error no file named .*\.safetensors"),
        ("config", r"cannot be loaded; got .*config.json: not JSON: "),
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


def test_a_config_of_another_size_is_reported(folder):
    path = folder / "backbone" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["intermediate_size"] = 96
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"tensors; got .*mlp.*: \(\d+, \d+\), not \("):
        zoo.load(folder)


def test_a_config_of_another_type_is_reported(folder):
    path = folder / "backbone" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["hidden_size"] = "wide"
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"backbone cannot be loaded; got .*hidden_size"):
        zoo.load(folder)


def test_heads_of_another_size_are_reported(folder):
    edit(folder, reasoning_tokens=3)
    with pytest.raises(UserError, match=r"reasoner.context: got \(\d+, \d+\), expected \(3, \d+\)"):
        zoo.load(folder)


def test_heads_that_are_gone_are_reported(folder):
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
        ("{", "cannot be loaded; got emosym.json: not JSON"),
        ("[]", "emosym.json: not a JSON object"),
        ("[" * 100_000, "emosym.json: not JSON that can be read: nested too deeply"),
        ("{}", "cannot be read; got KeyError 'model'"),
        ('{"model": {"format": "x"}}', "cannot be read"),
    ],
)
def test_an_unreadable_description_is_reported(folder, text, message):
    (folder / catalogue.CONFIG).write_text(text)
    with pytest.raises(UserError, match=message):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("image_size", 0, r"emosym.json: model: image_size; got 0; expected 8 to 8192"),
        ("image_size", 63, r"image_size does not fit the decoder of .*decoder; got 63; .* of 8"),
        ("image_size", 136, r"got 136; expected a multiple of 8, at most 128"),
        ("image_size", "big", r"emosym.json: model.image_size: got 'big'; expected an integer"),
        ("reasoning_tokens", -1, r"emosym.json: model: reasoning_tokens; got -1"),
        ("hidden", -1, r"emosym.json: model: hidden; got -1"),
        ("guidance", float("nan"), r"emosym.json: model.guidance: a number that is NaN"),
        ("conditioner", "wrd", r"emosym.json: model.conditioner: got 'wrd'; expected"),
        ("connector_layers", 0, r"emosym.json: model: connector_layers; got 0; expected 1 to 64"),
        ("steps", 10**12, r"emosym.json: model: steps; got 10+; expected 1 to 1000"),
        ("guidance", -1, r"emosym.json: model: guidance; got -1"),
        ("emotions", [], r"emosym.json: model: emotions; got \[\]; expected some of amusement"),
        ("emotions", ["awe", "awe"], r"emosym.json: model: emotions; .*each once"),
        ("emotions", ["joy"], r"emosym.json: model: emotions; got \['joy'\]"),
    ],
)
def test_a_description_that_makes_no_model_is_reported(folder, key, value, message):
    edit(folder, **{key: value})
    with pytest.raises(UserError, match=message):
        zoo.load(folder)


def test_a_window_without_room_is_reported(folder):
    about = json.loads((folder / catalogue.CONFIG).read_text()) | {"text_tokens": -1}
    (folder / catalogue.CONFIG).write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"emosym.json: text_tokens; got -1; expected 1 to 4096"):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"preprocessor_config.json: patch_size does not fit config.json; got 14; expected 8"),
        ({"patch_size": "8"}, r"preprocessor_config.json: patch_size .*; got '8'; expected 8"),
        ({"merge_size": 1}, r"preprocessor_config.json: merge_size .*; got 1; expected 2"),
        ({"image_mean": []}, r"backbone cannot be loaded; got mean must have 3 elements"),
        ({"resample": 99}, r"backbone cannot be loaded; got Unknown resampling filter"),
    ],
)
def test_an_image_processor_that_does_not_fit_is_reported(folder, changes, message):
    path = folder / "backbone" / "preprocessor_config.json"
    path.write_text(json.dumps(changes and json.loads(path.read_text()) | changes))
    with pytest.raises(UserError, match=message):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("backbone/tokenizer.json", None, "no tokenizer.json in it"),
        ("decoder/tokenizer/tokenizer.json", None, "no tokenizer.json in it"),
        ("backbone/tokenizer_config.json", None, r"got \d+ tokens for a model of \d+"),
        ("decoder/tokenizer/tokenizer_config.json", None, "decoder/tokenizer cannot be loaded"),
        ("backbone/chat_template.jinja", None, "chat_template is not set"),
        ("backbone/chat_template.jinja", "{% for", "cannot be loaded; got"),
        ("backbone/config.json", "[" * 100_000, "nested too deeply"),
    ],
)
def test_a_processor_with_parts_missing_is_reported(folder, file, text, message):
    (folder / file).unlink()
    if text is not None:
        (folder / file).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        zoo.load(folder)
    assert str((folder / file).parent) in str(error.value)


def test_an_unknown_key_is_told_with_the_nearest(folder):
    edit(folder, hiden=3)
    with pytest.raises(UserError, match=r"hiden: unknown key; did you mean 'hidden'\?"):
        zoo.load(folder)
