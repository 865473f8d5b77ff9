"""Model folders that hold code, or lead out of themselves: refused by every loader."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers import AutoModelForImageTextToText

from emosym.errors import UserError
from model_zoo import zoo
from model_zoo.backbones import qwen_vl
from model_zoo.backbones.qwen_vl import load_backbone
from model_zoo.decoders.loading import load_decoder
from model_zoo.pretrained import load_pretrained
from model_zoo.received import folder as checks
from model_zoo.text.clip import load_clip
from model_zoo.text.text_encoders import load_text_encoder
from model_zoo.text.tokenizer import load_tokenizer
from tests.emosym.cli.command import ROOT
from tests.model_zoo import clip_files

EVIL = "from pathlib import Path\nPath({marker!r}).touch()\n\n\nclass Evil:\n    pass\n"
CODE = {
    "AutoConfig": "evil.Evil",
    "AutoModel": "evil.Evil",
    "AutoModelForImageTextToText": "evil.Evil",
    "AutoTokenizer": ["evil.Evil", "evil.Evil"],
    "AutoImageProcessor": "evil.Evil",
    "AutoProcessor": "evil.Evil",
}
PARTS = {
    "backbone": ("config.json", "tokenizer_config.json", "preprocessor_config.json",
                 "generation_config.json"),
    "decoder": ("transformer/config.json", "text_encoder/config.json",
                "tokenizer/tokenizer_config.json", "vae/config.json",
                "scheduler/scheduler_config.json"),
    "clip": ("config.json", "tokenizer_config.json", "preprocessor_config.json"),
    "": ("emosym.json",),
}  # fmt: skip
FILES = [(part, file) for part, files in PARTS.items() for file in files]


@pytest.fixture
def clip(tmp_path) -> Path:
    return clip_files.write(tmp_path / "clip")


def loaders(part: str, model: Path, clip: Path) -> list:
    """Return every function that loads this part of a model."""
    return {
        "backbone": [lambda: zoo.load(model), lambda: load_backbone(model / part, torch.float32)],
        "decoder": [
            lambda: zoo.load(model),
            lambda: load_decoder(model / part, 64, 24, torch.float32),
        ],
        "clip": [lambda: load_clip(clip), lambda: load_text_encoder(str(clip))],
        "": [lambda: zoo.load(model), lambda: zoo.read_config(model)],
    }[part]


def add(path: Path, **entries) -> None:
    found = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(found | entries))


def put_code(path: Path, marker: Path) -> None:
    for place in {path.parent, path.parent.parent}:
        (place / "evil.py").write_text(EVIL.format(marker=str(marker)))


@pytest.mark.parametrize(("part", "file"), FILES)
def test_no_loader_runs_code_or_asks(part, file, folder, clip, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asked"))
    marker = tmp_path / "ran"
    path = (clip if part == "clip" else folder / part) / file
    for name in ("evil_model", None):  # also with a type that transformers does not know
        put_code(path, marker)
        add(path, auto_map=CODE, **({"model_type": name} if name else {}))
        for load in loaders(part, folder, clip):
            with pytest.raises(UserError, match="asks to run code that comes with the model") as e:
                load()
            assert f"{path} " in str(e.value)
            assert "auto_map" in str(e.value)
    assert not marker.exists()


COMMANDS = [
    ("understand", "{picture}", "--model", "{model}"),
    ("generate", "--emotion", "awe", "--out", "{out}", "--model", "{model}"),
    ("zoo", "compose", "{out}", "--backbone", "{model}/backbone"),
    ("zoo", "compose", "{out}", "--backbone", "emosym-tiny", "--decoder", "{model}/decoder"),
    ("zoo", "show", "{model}"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_commands_refuse_it_in_one_line_with_yes_on_the_input(words, folder, tmp_path):
    """In a process of their own, where transformers could ask."""
    marker, out = tmp_path / "ran", tmp_path / "out"
    for path in (folder / "backbone/config.json", folder / "decoder/transformer/config.json"):
        put_code(path, marker)
        add(path, auto_map=CODE, model_type="evil_model")
    picture = ROOT / "docs/images/reinforced-plane.png"
    filled = [word.format(model=folder, out=out, picture=picture) for word in words]
    done = subprocess.run(
        [sys.executable, "-c", "from emosym.cli import main; main()", *filled],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input="y\n" * 20,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    *progress, problem = done.stderr.splitlines()
    assert problem.startswith("error: ")
    assert progress in ([], ["loading backbone and decoder"])
    assert "asks to run code that comes with the model" in done.stderr
    assert "Do you wish" not in done.stdout + done.stderr
    assert not marker.exists()
    assert not out.exists()


@pytest.mark.parametrize(
    "load",
    [
        lambda folder: load_backbone(folder, torch.float32),
        lambda folder: load_tokenizer(folder, 10**6),
        lambda folder: load_pretrained(AutoModelForImageTextToText, folder),
    ],
    ids=["backbone", "tokenizer", "weights"],
)
@pytest.mark.parametrize("known", [False, True], ids=["unknown type", "known type"])
def test_without_the_check_the_libraries_do_not_ask_either(
    load, known, folder, clip, tmp_path, monkeypatch
):
    """A configuration of a known type may name code for a class that does not know the type."""
    monkeypatch.setattr(qwen_vl, "check_folder", lambda folder: None)
    asked = []
    monkeypatch.setattr("builtins.input", lambda *_: asked.append(1) or "y")
    source, marker = clip if known else folder / "backbone", tmp_path / "ran"
    type_ = {} if known else {"model_type": "evil_model", "tokenizer_class": "Evil"}
    for name in ("config.json", "tokenizer_config.json"):
        put_code(source / name, marker)
        add(source / name, auto_map=CODE, **type_)
    with contextlib.suppress(UserError):
        load(source)
    assert not asked
    assert not marker.exists()


@pytest.mark.parametrize(
    ("file", "entries", "named"),
    [
        ("backbone/config.json", {"text_config": {"auto_map": CODE}}, "auto_map"),
        ("backbone/config.json", {"attn_implementation": "someone/kernels"}, "someone/kernels"),
        ("backbone/config.json", {"_attn_implementation": {"": "a/b:c"}}, "a/b:c"),
        ("decoder/text_encoder/config.json", {"attn_implementation": "a/b"}, "a/b"),
        ("backbone/generation_config.json", {"custom_generate": "a/b"}, "custom_generate"),
        ("backbone/processor_config.json", {"auto_map": {"AutoProcessor": "e.E"}}, "auto_map"),
        ("backbone/video_preprocessor_config.json", {"auto_map": {"A": "e.E"}}, "auto_map"),
        ("decoder/model_index.json", {"_class_name": ["evil", "Pipe"]}, "_class_name"),
        ("decoder/model_index.json", {"_class_name": "evil.Pipe"}, "_class_name"),
        ("decoder/model_index.json", {"unet": ["evil", "Evil"]}, "unet"),
        ("decoder/model_index.json", {"custom_pipelines": "evil"}, "custom_pipelines"),
        ("decoder/transformer/config.json", {"_class_name": "evil.Evil"}, "_class_name"),
        ("decoder/vae/config.json", {"_class_name": "../evil.Evil"}, "_class_name"),
        ("decoder/scheduler/scheduler_config.json", {"_class_name": "evil.Evil"}, "_class_name"),
    ],
)
def test_other_ways_to_name_code(file, entries, named, folder, tmp_path):
    put_code(folder / file, tmp_path / "ran")
    add(folder / file, **entries)
    with pytest.raises(UserError, match="asks to run code that comes with the model") as error:
        zoo.load(folder)
    assert named in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_own_implementations_are_no_code(folder):
    add(folder / "backbone/config.json", _attn_implementation="sdpa")
    index = {"vae": ["diffusers", "AutoencoderKL"], "safety_checker": ["stable_diffusion", "Any"]}
    add(folder / "decoder/model_index.json", _class_name="StableDiffusionPipeline", **index)
    checks.check_folder(folder)


def test_an_adapter_is_refused(folder):
    """Transformers would load its base model from wherever it says."""
    add(folder / "backbone/adapter_config.json", base_model_name_or_path="/elsewhere")
    with pytest.raises(UserError, match=r"belongs to an adapter.*merge the adapter"):
        zoo.load(folder)


def test_models_of_diffusers_take_no_such_argument(folder):
    assert isinstance(load_pretrained(AutoencoderKL, folder / "decoder/vae"), AutoencoderKL)


# --- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["backbone/model.safetensors", "backbone/tokenizer.json",
                                  "heads.safetensors", "decoder/vae"])  # fmt: skip
def test_a_link_out_of_the_folder_is_refused(file, folder, tmp_path):
    path, outside = folder / file, tmp_path / "outside"
    shutil.move(path, outside)
    path.symlink_to(outside)
    with pytest.raises(UserError, match=r"leads out of the model folder; got a link to .*outside"):
        zoo.load(folder)
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(UserError, match="is no file"):
        zoo.load(folder)


def test_links_within_the_folder_and_into_the_cache_of_the_hub_are_followed(folder, tmp_path):
    weights = folder / "backbone" / "model.safetensors"
    weights.rename(weights.with_name("kept.bin"))
    weights.symlink_to("kept.bin")
    zoo.load(folder)
    link = tmp_path / "link"  # the folder itself may be a link
    link.symlink_to(folder)
    zoo.load(link)

    repository = tmp_path / "models--a--b"
    snapshot, blobs = repository / "snapshots" / "0123", repository / "blobs"
    shutil.copytree(folder / "backbone", snapshot, symlinks=False)
    blobs.mkdir()
    for number, path in enumerate(sorted(snapshot.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../../blobs/{number}")
    load_backbone(snapshot, torch.float32)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(folder / "backbone" / "config.json")
    with pytest.raises(UserError, match="leads out of the model folder"):
        load_backbone(snapshot, torch.float32)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", 3])
def test_an_index_names_only_weights_beside_it(name, folder):
    (folder / "backbone/model.safetensors").rename(folder / "model.safetensors")
    index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
    (folder / "backbone/model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="names weights outside of its folder"):
        load_backbone(folder / "backbone", torch.float32)


def test_a_pipe_in_place_of_a_file_does_not_hang(folder):
    (folder / "backbone/config.json").unlink()
    os.mkfifo(folder / "backbone/config.json")
    with pytest.raises(UserError, match="is no file"):
        zoo.load(folder)


@pytest.mark.parametrize(
    ("file", "limit"),
    [
        ("emosym.json", checks.LARGEST),
        ("backbone/config.json", checks.LARGEST),
        ("backbone/chat_template.jinja", checks.LARGEST),
        ("backbone/added_tokens.json", checks.LARGEST),
        ("backbone/tokenizer.json", checks.LARGE["tokenizer.json"]),
    ],
)
def test_a_huge_file_is_not_read(file, limit, folder):
    with (folder / file).open("wb") as stream:
        stream.truncate(limit + 1)
    with pytest.raises(UserError, match=rf"{file} is too large; got [0-9,]+ bytes"):
        zoo.load(folder)
