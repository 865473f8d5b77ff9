from __future__ import annotations

import errno
import math
import os
import resource
import shutil

import numpy as np
import pytest
from PIL import Image

from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import NORMS
from emosym.errors import UserError
from emosym.files import write_file
from emosym.inference.png_metadata import PngMetadata, read_png_metadata
from emosym.records import ImageRequest
from tests.emosym.cli.command import emosym, names_in, refused


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_images(model, drawn, tmp_path):
    request = ("generate", "--emotion", "awe", "--prompt", "a tree", "--num-inference-steps", 2)
    for seed in (4, 6):
        out = tmp_path / f"{seed}.png"
        assert emosym(*request, "--seed", seed, "--out", out, "--model", model).code == 0
        assert out.read_bytes() == (drawn / f"{seed}.png").read_bytes()
    assert len({(drawn / f"{seed}.png").read_bytes() for seed in (4, 5, 6)}) == 3
    other = tmp_path / "other.png"
    guided = emosym(*request, "--seed", 4, "--guidance-scale", 7, "--out", other, "--model", model)
    assert guided.code == 0
    with Image.open(other) as one, Image.open(drawn / "4.png") as two:
        assert one.tobytes() != two.tobytes()


def test_generate_prints_the_json_of_the_contract(model, tmp_path):
    out = tmp_path / "new" / "folder"
    done = emosym(
        *("generate", "--prompt", " a boat ", "--valence", "-1.5", "--arousal", "2"),
        *(
            "--num-images-per-prompt",
            2,
            "--seed",
            7,
            "--num-inference-steps",
            1,
            "--out",
            out,
            "--model",
            model,
            "--json",
        ),
    )
    assert done.err == ""
    common = {"prompt": "a boat", "emotion": None, "valence": -1.5, "arousal": 2.0}
    assert done.json == [
        {"image": str(out / f"{seed}.png"), **common, "seed": seed} for seed in (7, 8)
    ]
    assert names_in(out) == ["7.png", "8.png"]
    with Image.open(out / "7.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))
    assert (out / "7.png").stat().st_mode & 0o777 == 0o644


def test_an_emotion_alone_brings_its_own_affect(model, tmp_path):
    out = tmp_path / "x.png"
    done = emosym(
        *(
            "generate",
            "--emotion",
            "Sad",
            "--num-inference-steps",
            1,
            "--out",
            out,
            "--model",
            model,
            "--json",
        )
    )
    norm = NORMS["sadness"].to(PUBLIC)
    assert done.json == [
        {
            "image": str(out),
            "prompt": "",
            "emotion": "sadness",
            "valence": norm.valence,
            "arousal": norm.arousal,
            "seed": 0,
        }
    ]


def test_a_generated_file_tells_how_it_was_made(model, drawn):
    from model_zoo import zoo

    norm = NORMS["awe"].to(PUBLIC)
    assert read_png_metadata(drawn / "5.png") == PngMetadata(
        request=ImageRequest(prompt="a tree", emotion="awe", affect=norm),
        seed=5,
        guidance=2.0,
        steps=2,
        model=zoo.fingerprint(model),
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ([], "an empty request"),
        (["--prompt", "  "], "an empty request"),
        (["--emotion", "angr"], "unknown emotion 'angr'; expected one of amusement"),
        (["--emotion", "angr"], "did you mean 'anger'?"),
        (["--valence", "1"], "valence and arousal go together; give both, or neither"),
        (["--emotion", "awe", "--arousal", "1"], "valence and arousal go together"),
        (["--valence", "3.5", "--arousal", "0"], "valence is outside its scale; got 3.5"),
        (["--valence", "0", "--arousal", "nan"], "arousal is outside its scale; got nan"),
        (["--prompt", "x", "--guidance-scale", "nan"], "the guidance scale; got nan"),
        (["--prompt", "x", "--guidance-scale", "inf"], "the guidance scale; got inf"),
        (["--prompt", "x", "--guidance-scale", "-1"], "the guidance scale; got -1"),
        (["--prompt", "x", "--num-inference-steps", "0"], "the number of inference steps; got 0"),
        (
            ["--prompt", "x", "--num-inference-steps", str(10**12)],
            f"got {10**12}; expected 1 to 1000",
        ),
        (["--prompt", "x", "--seed", str(2**63)], "Invalid value for '--seed'"),
        (
            ["--prompt", "x", "--num-images-per-prompt", str(10**12)],
            "'--num-images-per-prompt': Input should be less than or equal to 1000000",
        ),
    ],
)
def test_a_bad_request_is_an_error_before_a_model_is_loaded(options, problem, tmp_path):
    out = tmp_path / "x.png"
    done = emosym("generate", *options, "--out", out, "--model", "no-such-model")
    refused(done, problem)
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_is_not_finite_is_never_written(model, tmp_path):
    request = ("generate", "--prompt", "x", "--num-inference-steps", 1, "--out", tmp_path / "x.png")
    wild = emosym(*request, "--guidance-scale", "1e300", "--model", model)
    refused(wild, "has pixels that are not finite", "lower the guidance scale")
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    from safetensors.torch import load_file, save_file

    path = broken / "decoder" / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: value * math.nan for name, value in load_file(path).items()}, path)
    refused(emosym(*request, "--model", broken), "are not finite; got NaN or infinity in ")
    assert not (tmp_path / "x.png").exists()


def test_a_prompt_that_does_not_fit_leaves_no_files(model, tmp_path):
    out = tmp_path / "out"
    done = emosym("generate", "--prompt", "lake " * 60, "--out", out, "--model", model)
    refused(done, "is too long for the decoder's text encoder", "shorten the prompt")
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_was_not_trained_to_generate_is_named(model, tmp_path):
    """As `zoo compose` makes it: its conditioner is new."""
    made = tmp_path / "made"
    done = emosym("zoo", "compose", made, "--backbone", model / "backbone", "--decoder", model)
    assert done.code == 0, done.err
    warning = (
        "warning: the model was not trained to generate, so its images do not show the wanted"
        " emotion; train it with a phase that generates, as `make train-joint` does\n"
    )
    wanted = ("--prompt", "x", "--num-inference-steps", 1, "--model", made)
    done = emosym("generate", *wanted, "--out", tmp_path / "x.png")
    assert (done.code, done.err) == (0, warning)
    done = emosym(
        "generate", *wanted, "--sweep", "valence", "--points", 2, "--out", tmp_path / "s.png"
    )
    assert done.code == 0
    assert warning in done.err
    affect = ("--valence", 1, "--arousal", 1)
    done = emosym("refine", *wanted, *affect, "--best-of", 1, "--out", tmp_path / "r")
    assert done.code == 0
    assert warning in done.err


def test_where_images_go(model, tmp_path):
    request = ("generate", "--prompt", "x", "--num-inference-steps", 1, "--model", model)
    refused(
        emosym(*request, "--num-images-per-prompt", 2, "--out", tmp_path / "x.png"),
        "2 images cannot be written to one file",
        "expected a folder",
    )
    refused(
        emosym(*request, "--out", tmp_path / "x.jpg"),
        "images are written as PNG",
        f"expected {tmp_path / 'x.png'}",
    )
    (tmp_path / "file").write_text("mine")
    refused(emosym(*request, "--out", tmp_path / "file" / "x.png"), "cannot write", "file/x.png")
    assert names_in(tmp_path) == ["file"]
    (tmp_path / "dir.png").mkdir()
    assert emosym(*request, "--out", tmp_path / "dir.png").code == 0
    assert names_in(tmp_path / "dir.png") == ["0.png"]


def test_a_file_is_replaced_only_with_overwrite(model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "1.png").write_bytes(b"precious")
    request = (
        "generate",
        "--prompt",
        "x",
        "--num-inference-steps",
        1,
        "--num-images-per-prompt",
        2,
        "--out",
        out,
    )
    refused(
        emosym(*request, "--model", model),
        f"{out / '1.png'} exists",
        "got 1 of 2 files",
        "--overwrite",
    )
    assert names_in(out) == ["1.png"]
    assert (out / "1.png").read_bytes() == b"precious"
    assert emosym(*request, "--model", model, "--overwrite").code == 0
    assert names_in(out) == ["0.png", "1.png"]
    assert (out / "1.png").read_bytes().startswith(b"\x89PNG")


def test_a_full_disk_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError) as problem:
            write_file(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"cannot write {path}; got {os.strerror(errno.EFBIG)}" in str(problem.value)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["x.png"]


# --- the emotion space


@pytest.fixture(scope="module")
def spacious(model, world, tmp_path_factory):
    """Return a copy of the model to which the command gave the space of a drawn world."""
    folder = tmp_path_factory.mktemp("spacious") / "model"
    shutil.copytree(model, folder)
    done = emosym("zoo", "space", folder, "--data", world)
    assert (done.code, done.out) == (0, f"{folder / 'emotion_space.safetensors'}\n")
    return folder


def test_the_command_fits_the_training_images_of_each_emotion(spacious, world):
    from data_tools.dataset import open_dataset
    from emosym.inference.pipeline import EmoSymPipeline
    from emosym.pictures.loading import load_image

    pipeline = EmoSymPipeline.from_pretrained(spacious)
    images = [s for s in open_dataset(world) if s.split == "train"]
    awe = pipeline.embed_images([load_image(s.image) for s in images if s.emotion == "awe"])
    found = pipeline.model.space.gaussians
    factor = found["awe"].factor[:, 0].numpy()
    assert set(found) == {s.emotion for s in images}
    assert abs(found["awe"].mean[0].numpy() - awe.mean(0)).max() < 1e-4
    assert abs(factor.T @ factor - np.cov(awe.T, bias=True)).max() < 1e-4


def test_a_space_is_replaced_only_with_overwrite(spacious, model, world, tmp_path):
    import safetensors.torch
    import torch

    again = ("zoo", "space", spacious, "--data", world)
    before = (spacious / "emotion_space.safetensors").read_bytes()
    refused(emosym(*again), "emotion_space.safetensors exists", "--overwrite replaces it")
    assert emosym(*again, "--overwrite").code == 0
    assert (spacious / "emotion_space.safetensors").read_bytes() == before
    # A space of an old format is no obstacle to its replacement.
    old = shutil.copytree(spacious, tmp_path / "old")
    state = {"awe.mean": torch.zeros(9, 160), "awe.std": torch.ones(9, 160)}
    safetensors.torch.save_file(state, old / "emotion_space.safetensors")
    request = ("generate", "--emotion", "awe", "--from-space", "--out", tmp_path / "x.png")
    refused(emosym(*request, "--model", old), "does not belong to this model", "--overwrite")
    assert emosym("zoo", "space", old, "--data", world, "--overwrite").code == 0
    assert (old / "emotion_space.safetensors").read_bytes() == before
    refused(emosym("zoo", "space", model, "--data", tmp_path), "has an unknown layout")
    refused(emosym("zoo", "space", "emosym-tini", "--data", world), "did you mean 'emosym-tiny'?")
    assert not (model / "emotion_space.safetensors").exists()


def test_an_emotion_is_drawn_from_the_space(spacious, tmp_path):
    from emosym.inference.pipeline import EmoSymPipeline
    from model_zoo import zoo

    out = tmp_path / "out"
    request = (
        "generate",
        "--emotion",
        "sad",
        "--from-space",
        "--num-inference-steps",
        1,
        "--model",
        spacious,
    )
    found = emosym(*request, "--seed", 3, "--num-images-per-prompt", 2, "--out", out, "--json").json
    pipeline = EmoSymPipeline.from_pretrained(spacious)
    for record, wanted in zip(found, pipeline.wanted("sadness", 2, seed=3), strict=True):
        assert record["emotion"] == "sadness"
        assert record["space"] == {"sadness": 1.0}
        assert record["valence"] == pytest.approx(wanted.affect.valence, abs=1e-6)
        assert record["arousal"] == pytest.approx(wanted.affect.arousal, abs=1e-6)
    imprint = read_png_metadata(out / "4.png")
    assert (imprint.seed, imprint.space) == (4, {"sadness": 1.0})
    assert imprint.request.affect.valence == found[1]["valence"]
    assert imprint.model == zoo.fingerprint(spacious)
    (image,) = pipeline.imagine("sadness", seed=4, num_inference_steps=1)
    with Image.open(out / "4.png") as written:
        assert written.tobytes() == image.tobytes()


def test_a_blend_is_drawn_from_the_space(spacious, tmp_path):
    request = ("generate", "--prompt", "a boat", "--num-inference-steps", 1, "--model", spacious)
    done = emosym(*request, "--blend", " awe=3, fear=1", "--out", tmp_path / "x.png", "--json")
    (record,) = done.json
    assert (record["prompt"], record["emotion"]) == ("a boat", None)
    assert record["space"] == {"awe": 0.75, "fear": 0.25}
    assert read_png_metadata(tmp_path / "x.png").space == {"awe": 0.75, "fear": 0.25}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--from-space"], "takes one emotion or a blend; got neither --emotion nor"),
        (["--blend", "awe=1", "--emotion", "awe"], "got both --emotion and --blend"),
        (["--emotion", "aw", "--from-space"], "unknown emotion 'aw'"),
        (
            ["--emotion", "awe", "--from-space", "--valence", "1", "--arousal", "1"],
            "--valence and --arousal exclude the emotion space; leave out --valence",
        ),
        (["--blend", "awe"], "the blend cannot be parsed; got 'awe'; expected awe=0.7,fear=0.3"),
        (["--blend", "awe=x"], "the blend cannot be parsed; got 'awe=x'"),
        (["--blend", "awe=1,"], "the blend cannot be parsed; got ''; expected"),
        (["--blend", "awe=1,awe=2"], "awe is twice in the blend"),
        (["--blend", "joy=1"], "unknown emotion 'joy'"),
        (["--blend", "awe=nan"], "the weight of awe in a blend; got nan"),
    ],
)
def test_a_bad_blend_is_an_error_before_a_model_is_loaded(options, problem, tmp_path):
    done = emosym("generate", *options, "--out", tmp_path / "x.png", "--model", "no-such-model")
    refused(done, problem)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_space_says_how_to_make_one(model, tmp_path):
    request = ("generate", "--emotion", "awe", "--from-space", "--out", tmp_path / "x.png")
    refused(
        emosym(*request, "--model", model),
        "the model has no emotion space",
        "`emosym zoo space MODEL --data FOLDER`",
    )
    assert list(tmp_path.iterdir()) == []


def test_each_source_of_guidance_has_a_scale_of_its_own(model, tmp_path):
    request = ("generate", "--emotion", "awe", "--prompt", "a tree", "--num-inference-steps", 2)
    scales = {"all": "3", "same": "text=3, affect=3,state=3", "affect": "affect=3", "one": "1"}
    for name, scale in scales.items():
        out = tmp_path / f"{name}.png"
        done = emosym(*request, "--guidance-scale", scale, "--out", out, "--model", model)
        assert done.code == 0, done.err
    pixels = {}
    for name in scales:
        with Image.open(tmp_path / f"{name}.png") as image:
            pixels[name] = image.tobytes()
    assert pixels["all"] == pixels["same"]
    assert len(set(pixels.values())) == 3
    assert read_png_metadata(tmp_path / "all.png").guidance == 3
    assert read_png_metadata(tmp_path / "affect.png").guidance == {"affect": 3}


@pytest.mark.parametrize(
    ("scale", "told"),
    [
        (
            "text=2,colour=1",
            "unknown source of the guidance scale: 'colour'; expected one of affect, state, text",
        ),
        ("text=2,text=3", "text is twice in the guidance scale"),
        ("text", "the guidance scale cannot be parsed; got 'text'; expected 2, or text=2,affect=3"),
        (
            "affect=-1",
            "the guidance scale of affect; got -1.0; expected a finite number, 0 or more",
        ),
        ("text=nan", "the guidance scale of text; got nan; expected a finite number, 0 or more"),
    ],
)
def test_a_wrong_guidance_scale_is_refused(scale, told, tmp_path):
    out = tmp_path / "x.png"
    done = emosym("generate", "--emotion", "awe", "--guidance-scale", scale, "--out", out)
    refused(done, told)
