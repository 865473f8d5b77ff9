from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.records import ImageRequest
from emosym.rl.scorers import JudgeSpec
from model_zoo import zoo
from model_zoo.judges.clip_judges import ClipScore
from model_zoo.judges.registry import JUDGES, build_judge
from model_zoo.text.clip import load_clip
from tests.model_zoo import clip_files, make

PROMPTS = ["a red house.", "boats", "a red house."]
REQUESTS = [ImageRequest(prompt=prompt, affect=Affect(1, -1), emotion="awe") for prompt in PROMPTS]
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clip_files.write(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    rng = torch.Generator().manual_seed(2)
    file = tmp_path_factory.mktemp("layer") / "layer.safetensors"
    tensors = {"weight": torch.randn(1, clip_files.WIDTH, generator=rng), "bias": torch.ones(1) * 5}
    safetensors.torch.save_file(tensors, file)
    return file


@pytest.fixture(scope="module")
def own():
    return EmoSymPipeline(zoo.load("emosym-tiny"))


@pytest.fixture(scope="module")
def images():
    """Return images of the size that the tiny CLIP reads: a twin has nothing to cut or resize."""
    return [make.picture(32, 32, seed) for seed in range(3)]


@torch.no_grad()
def twin(folder, images, texts):
    """Return unit vectors of images and texts, one at a time, and exp of the logit scale."""
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    pixels = [
        torch.tensor((np.asarray(image) / 255 - MEAN) / STD, dtype=torch.float32).permute(2, 0, 1)
        for image in images
    ]
    seen = [
        model.visual_projection(model.vision_model(pixel[None]).pooler_output)[0]
        for pixel in pixels
    ]
    read = [
        model.text_projection(
            model.text_model(torch.tensor([tokenizer(text).input_ids])).last_hidden_state[0, -1]
        )
        for text in texts
    ]

    def unit(vector):
        return (vector / math.sqrt(sum(x * x for x in vector.tolist()))).double().numpy()

    scale = math.exp(float(model.logit_scale))
    return [unit(v) for v in seen], [unit(v) for v in read], scale


def built(name, folder, layer):
    spec = JudgeSpec(path=str(folder), weights=str(layer) if name == "aesthetic" else None)
    return build_judge(name, spec)


def test_pickscore_against_a_slow_twin(folder, images):
    seen, read, scale = twin(folder, images, PROMPTS)
    assert scale == pytest.approx(math.exp(3))
    expected = [scale * float(s @ r) / 26 for s, r in zip(seen, read, strict=True)]
    scores = build_judge("pickscore", JudgeSpec(path=str(folder)))(images, REQUESTS)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert len({round(score, 4) for score in expected}) == 3


def test_clipscore_is_the_cosine_and_never_negative(folder, images):
    seen, read, _ = twin(folder, images, PROMPTS)
    cosines = [float(s @ r) for s, r in zip(seen, read, strict=True)]
    scorer = build_judge("clipscore", JudgeSpec(path=str(folder)))
    assert scorer(images, REQUESTS) == pytest.approx([max(c, 0) for c in cosines], abs=1e-6)
    assert max(cosines) > 0
    copy = load_clip(folder)
    copy.model.visual_projection.weight.data.neg_()  # every cosine changes its sign
    turned = ClipScore(copy)(images, REQUESTS)
    assert turned == pytest.approx([max(-c, 0) for c in cosines], abs=1e-6)
    assert 0 in turned.tolist() or 0 in scorer(images, REQUESTS).tolist()


def test_clip_iqa_against_a_slow_twin(folder, images):
    seen, (good, bad), scale = twin(folder, images, ["Good photo.", "Bad photo."])
    expected = [
        math.exp(scale * float(s @ good))
        / (math.exp(scale * float(s @ good)) + math.exp(scale * float(s @ bad)))
        for s in seen
    ]
    scores = build_judge("clip_iqa", JudgeSpec(path=str(folder)))(images, REQUESTS)
    assert scores == pytest.approx(expected, abs=1e-5)
    assert np.ptp(scores) > 1e-3


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_aesthetic_is_a_linear_layer_on_unit_vectors(folder, layer, images, suffix, tmp_path):
    tensors = safetensors.torch.load_file(layer)
    file = tmp_path / f"layer.{suffix}"
    if suffix == "pth":
        torch.save(tensors, file)
    else:
        shutil.copy(layer, file)
    seen, _, _ = twin(folder, images, [])
    weight = tensors["weight"][0].double().numpy()
    expected = [(sum(w * x for w, x in zip(weight, s, strict=True)) + 5) / 10 for s in seen]
    scores = build_judge("aesthetic", JudgeSpec(path=str(folder), weights=str(file)))(
        images, REQUESTS
    )
    assert scores == pytest.approx(expected, abs=1e-5)
    assert np.ptp(scores) > 1e-3


@pytest.mark.parametrize("name", ["pickscore", "clipscore", "clip_iqa", "aesthetic"])
def test_a_score_is_that_of_the_image_alone(name, folder, layer):
    """Not of the batch it came in; more images than are read at once, of mixed sizes."""
    scorer = built(name, folder, layer)
    images = make.pictures(35)
    texts = ["a" * (1 + place % 7) for place in range(35)]
    requests = [ImageRequest(prompt=text) for text in texts]
    together = scorer(images, requests)
    for place in (0, 4, 31, 32, 34):
        alone = scorer([images[place]], [requests[place]])
        assert alone[0] == pytest.approx(together[place], abs=1e-5)
    assert scorer([], []).shape == (0,)


def test_grey_images_are_read_too(folder):
    scorer = build_judge("clip_iqa", JudgeSpec(path=str(folder)))
    grey = make.picture(32, 32).convert("L")
    two = scorer([grey, grey.convert("RGB")], REQUESTS[:2])
    assert two[0] == pytest.approx(two[1], abs=1e-6)


@pytest.mark.parametrize("name", ["pickscore", "clipscore", "clip_iqa", "aesthetic"])
def test_transparent_images_are_judged_on_white(name, folder, layer):
    """Whatever colour is hidden."""
    image, shape = make.picture(32, 32), Image.new("L", (32, 32))
    shape.paste(255, (4, 4, 20, 20))
    on = [
        Image.composite(image, Image.new("RGB", (32, 32), one), shape) for one in ("white", "red")
    ]
    hidden = on[1].copy()
    hidden.putalpha(shape)
    white, transparent, red = built(name, folder, layer)([on[0], hidden, on[1]], REQUESTS[:1] * 3)
    assert transparent == pytest.approx(white, abs=1e-6)
    assert red != pytest.approx(white, abs=1e-5)


def test_a_long_prompt_is_truncated_as_published_and_an_empty_one_refused(folder, images):
    scorer = build_judge("clipscore", JudgeSpec(path=str(folder)))
    fits = " ".join("a" * (clip_files.WINDOW - 2))
    prompts = [fits, fits + " b", "b " + fits]
    whole, longer, other = scorer(images[:1] * 3, [ImageRequest(prompt=one) for one in prompts])
    assert whole == pytest.approx(longer, abs=1e-6)
    assert whole != pytest.approx(other, abs=1e-4)
    with pytest.raises(UserError, match=r"^request 1 has no prompt"):
        scorer(images[:2], [ImageRequest(prompt="short"), ImageRequest(emotion="awe")])


def test_old_files_with_position_ids_are_read(folder, images, tmp_path):
    shutil.copytree(folder, tmp_path / "old")
    file = tmp_path / "old" / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["text_model.embeddings.position_ids"] = torch.arange(40)[None]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    old, new = (load_clip(path).embed_images(images) for path in (tmp_path / "old", folder))
    assert torch.equal(old, new)


# --- what cannot be loaded ----------------------------------------------------------------------


def damage(folder, name, change):
    file = folder / name
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (lambda f: (f / "preprocessor_config.json").unlink(), "cannot be loaded"),
        (lambda f: (f / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "cannot be loaded"),
        (
            lambda f: damage(
                f, "preprocessor_config.json", lambda c: c["crop_size"].update(height=48, width=48)
            ),
            r"cannot be loaded.*48",
        ),
        (
            lambda f: damage(f, "config.json", lambda c: c["text_config"].update(vocab_size=50)),
            r"do not fit their model",
        ),
    ],
)
def test_a_broken_clip_is_told_when_it_is_loaded(folder, tmp_path, broken, problem):
    copy = shutil.copytree(folder, tmp_path / "copy")
    broken(copy)
    with pytest.raises(UserError, match=problem):
        build_judge("clipscore", JudgeSpec(path=str(copy)))


class Payload:
    """What a hostile pickle holds."""

    def __reduce__(self):
        return (print, ("harm",))


def test_another_layer_is_refused(folder, tmp_path, capsys):
    def refused(save, problem):
        file = tmp_path / "layer.pth"
        save(file)
        with pytest.raises(UserError, match=problem):
            build_judge("aesthetic", JudgeSpec(path=str(folder), weights=str(file)))

    large = {"weight": torch.zeros(1, 768), "bias": torch.zeros(1)}
    refused(lambda f: torch.save(large, f), r"got .*\[1, 768\].*expected weight \[1, 24\]")
    refused(lambda f: torch.save({"layers.0.weight": torch.zeros(2)}, f), "not a linear layer")
    refused(lambda f: torch.save([torch.zeros(2)], f), "more than named tensors")
    refused(lambda f: torch.save({"weight": Payload()}, f), "or contains more than tensors")
    refused(lambda f: f.write_bytes(b"nothing"), "cannot be loaded")
    assert "harm" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no file .*missing"):
        build_judge("aesthetic", JudgeSpec(path=str(folder), weights=str(tmp_path / "missing")))


# --- the registry -------------------------------------------------------------------------------


def test_names():
    assert list(JUDGES) == [
        "affect", "label", "pickscore", "clipscore", "aesthetic", "clip_iqa", "http",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"unknown judge 'pickscor'.*did you mean 'pickscore'"):
        build_judge("pickscor", JudgeSpec())


@pytest.mark.parametrize(
    ("name", "keys", "problem"),
    [
        ("pickscore", {}, "judge 'pickscore': path is missing"),
        ("aesthetic", {"path": "x"}, "judge 'aesthetic': weights is missing"),
        ("http", {"path": "http://h/v1"}, "judge 'http': model is missing"),
        ("pickscore", {"path": "x", "shape": "gauss"}, "'pickscore' has no key 'shape'; expected"),
        ("label", {"timeout": 3}, "'label' has no key 'timeout'; expected path$"),
        ("affect", {}, "no model to judge with; set path"),
        ("affect", {"path": "no-such-model"}, "no-such-model"),
        ("http", {"path": "http://h/v1", "model": "m", "shape": "x"}, "unknown shape"),
        (
            "http",
            {"path": "http://h/v1", "model": "m", "timeout": 0.0},
            "invalid timeout of a judge",
        ),
        (
            "http",
            {"path": "http://h/v1", "model": "m", "retries": -1},
            "invalid retries of a judge",
        ),
        (
            "http",
            {"path": "http://h/v1", "model": "m", "max_tokens": 0},
            "invalid max_tokens of a judge; got 0",
        ),
        (
            "http",
            {"path": "http://h/v1", "model": "m", "max_tokens": 9, "max_completion_tokens": 8},
            "are one limit; got 9 and 8",
        ),
        (
            "http",
            {"path": "http://h/v1", "model": "m", "temperature": 3.0},
            "invalid temperature of a judge; got 3.0; expected 0 to 2",
        ),
    ],
)
def test_a_wrong_spec_is_told_before_anything_is_judged(name, keys, problem):
    with pytest.raises(UserError, match=problem):
        build_judge(name, JudgeSpec(**keys))


def test_our_own_branch_by_name(own):
    images = make.pictures(2)
    requests = REQUESTS[:2]
    seen = own.understand(images, answer=False)
    scores = build_judge("affect", JudgeSpec(shape="threshold"), own=own)(images, requests)
    points = [one.affect.coordinates for one in seen]
    hits = [(abs(v - 1) < 0.5) / 2 + (abs(a + 1) < 0.5) / 2 for v, a in points]
    assert scores.tolist() == hits
    scores = build_judge("label", JudgeSpec(), own=own)(images, requests)
    assert scores.tolist() == [s.probabilities["awe"] for s in seen]


class Never:
    def recognise(self, images):
        raise AssertionError("it was asked")


def test_another_model_by_path_is_asked_instead_of_our_own(own):
    images = make.pictures(2)
    scorer = build_judge("label", JudgeSpec(path="emosym-tiny"), own=Never())
    seen = own.understand(images, answer=False)
    assert scorer(images, REQUESTS[:2]).tolist() == [s.probabilities["awe"] for s in seen]


def test_a_judge_without_a_finite_score_stops(folder, layer, images, tmp_path):
    tensors = safetensors.torch.load_file(layer)
    file = tmp_path / "layer.safetensors"
    safetensors.torch.save_file(tensors | {"bias": torch.tensor([math.nan])}, file)
    scorer = build_judge("aesthetic", JudgeSpec(path=str(folder), weights=str(file)))
    with pytest.raises(UserError, match="a CLIP judge gives a score that is not finite"):
        scorer(images, REQUESTS)
    with pytest.raises(UserError, match="'clip_iqa' does not give one score for each image"):
        build_judge("clip_iqa", JudgeSpec(path=str(folder)))([Image.new("RGB", (8, 8))], REQUESTS)
