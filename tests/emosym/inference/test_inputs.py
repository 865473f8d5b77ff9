"""One item gives one result, a list gives a list; everything else is one clear line."""

from __future__ import annotations

import doctest
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import emosym
import emosym.inference.pipeline as module
from emosym.affect.scales import PUBLIC, Affect
from emosym.affect.taxonomies import NORMS
from emosym.errors import UserError
from emosym.inference.inputs import as_requests
from emosym.inference.pipeline import EmoSymPipeline
from emosym.records import ImageRequest, Question, Understanding, split_answer
from tests.model_zoo.make import picture


@pytest.fixture(scope="module")
def pipe(tiny) -> EmoSymPipeline:
    return EmoSymPipeline(tiny, answer_tokens=4)


def same(one, other) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


# --- images


def test_every_kind_of_image_gives_the_same_result(pipe, tmp_path):
    image = picture(40)
    path = tmp_path / "photo.png"
    image.save(path)
    kinds = [str(path), path, path.read_bytes(), image, np.asarray(image)]
    (first, *others) = [pipe.understand(kind, answer=False) for kind in kinds]
    assert isinstance(first, Understanding)
    assert all(other == first for other in others)
    together = pipe.understand(kinds, answer=False)
    assert [one.emotion for one in together] == [first.emotion] * 5
    assert isinstance(pipe.understand(str(path)), Understanding)


def test_tensors_and_channels_first_are_images(pipe):
    """As arrays: uint8 and floats in [0, 1], one or several, on any device and of any precision."""
    image = picture(40)
    pixels = np.asarray(image)
    first = pipe.understand(image, answer=False)
    uint8 = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    floats = (uint8.float() / 255).requires_grad_()
    for given in (
        uint8,
        floats,
        floats.double(),
        pixels.transpose(2, 0, 1),
        uint8.permute(1, 2, 0),
    ):
        assert pipe.understand(given, answer=False) == first
    for several in (uint8[None], [uint8], floats[None], pixels.transpose(2, 0, 1)[None]):
        assert pipe.understand(several, answer=False) == [first]
    assert pipe.understand(torch.ones(3, 40, 40, dtype=torch.bfloat16), answer=False) == (
        pipe.understand(np.full((40, 40, 3), 255, np.uint8), answer=False)
    )


def test_one_gives_one_and_a_list_gives_a_list(pipe):
    image = picture(48)
    for several in ([image], (image,), iter([image]), np.asarray(image)[None]):
        found = pipe.understand(several, answer=False)
        assert isinstance(found, list)
        assert len(found) == 1
    assert pipe.understand([]) == []
    assert pipe.embed_images(image).shape == pipe.embed_images([image]).shape
    question = Question(id="q", task="affect", images=(image,), split="test", text="How is it?")
    assert [pipe.answer(question, max_tokens=3)] == pipe.answer([question], max_tokens=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (3, "this is not an image; got int 3; expected a path, bytes"),
        (None, "this is not an image; got NoneType None"),
        ({"image": "a.png"}, "this is not an image; got dict"),
        ("photo.jpg", "cannot read image photo.jpg; got file does not exist"),
        ("", "cannot read image"),
        (b"", "cannot read an image given in memory; got no bytes"),
        (b"GIF", "cannot read an image given in memory"),
        ([["a.png"]], "cannot read an image given in memory; got list is no path"),
        ([None], "NoneType is no path"),
        (np.zeros((2, 2, 7), np.uint8), "cannot read an image given in memory"),
        (np.array("x"), "cannot read an image given in memory"),
        (torch.full((3, 8, 8), 255.0), "got floats from 255 to 255; expected floats in [0, 1], or"),
        (torch.zeros(5), "got an array of shape [5]; expected [H, W], [H, W, 1 to 4] or [3, H, W]"),
    ],
)
def test_what_is_not_an_image(pipe, wrong, message):
    for call in (pipe.understand, pipe.recognise, pipe.embed_images):
        with pytest.raises(UserError) as caught:
            call(wrong)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["why?", None, 3, [picture(40)], {"text": "why?"}])
def test_what_is_not_a_question(pipe, wrong):
    with pytest.raises(
        UserError, match=r"this is not a question; got .*; expected emosym\.records"
    ):
        pipe.answer(wrong)


# --- requests


def test_every_kind_of_request_gives_the_same_image(pipe):
    request = ImageRequest(prompt="a boat", emotion="awe", affect=Affect(1, 2))
    few = {"seed": 3, "num_inference_steps": 2}
    image = pipe.generate(request, **few)
    assert isinstance(image, Image.Image)
    wanted = {"emotion": "awe", "valence": 1, "arousal": 2.0}
    for call in (
        lambda: pipe("a boat", **wanted, **few),
        lambda: pipe(prompt="a boat", **wanted, **few),
        lambda: pipe.generate("a boat", **wanted, **few),
        lambda: pipe.generate([request], **few)[0],
        lambda: pipe(["a boat"], **wanted, **few)[0],
        lambda: pipe(iter(["a boat"]), **wanted, **few)[0],
    ):
        assert same(call(), image)
    assert same(pipe(emotion="awe", **few), pipe.generate(ImageRequest(emotion="awe"), **few))
    assert len(pipe("a boat", num_images_per_prompt=2, **few)) == 2
    assert len(pipe(["a boat", "a tree"], **few)) == 2
    assert pipe([]) == []


def test_a_list_has_the_emotion_of_each_prompt(pipe):
    few = {"seed": 3, "num_inference_steps": 2}
    both = pipe(["a boat", "a cat"], emotion=["awe", "fear"], **few)
    apart = [
        ImageRequest(prompt="a boat", emotion="awe"),
        ImageRequest(prompt="a cat", emotion="fear"),
    ]
    assert [same(*pair) for pair in zip(both, pipe(apart, **few), strict=True)] == [True, True]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"emotion": ["awe", None]}, [("awe", NORMS["awe"].to(PUBLIC)), (None, None)]),
        (
            {"emotion": ("awe", "fear")},
            [("awe", NORMS["awe"].to(PUBLIC)), ("fear", NORMS["fear"].to(PUBLIC))],
        ),
        (
            {"emotion": "awe", "valence": [1, -2.5], "arousal": 2},
            [("awe", Affect(1, 2)), ("awe", Affect(-2.5, 2))],
        ),
        (
            {"valence": np.array([1.0, 2.0]), "arousal": [0, 3]},
            [(None, Affect(1, 0)), (None, Affect(2, 3))],
        ),
        ({"valence": [1, None], "arousal": [0, None]}, [(None, Affect(1, 0)), (None, None)]),
    ],
)
def test_one_value_is_of_all_prompts_and_a_list_of_each(wanted, found):
    requests, one = as_requests(["a boat", "a cat"], **wanted)
    assert [(request.emotion, request.affect) for request in requests] == found
    assert [request.prompt for request in requests] == ["a boat", "a cat"]
    assert not one


def test_a_list_of_one_is_of_one_prompt():
    assert as_requests("a boat", emotion=["awe"]) == as_requests("a boat", emotion="awe")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda pipe: pipe(["a", "b"], emotion=["awe", "fear", "anger"]),
            "a list for emotion has one item for each prompt; got 3 items for 2 prompts; give"
            " emotion once for all prompts, or once for each",
        ),
        (lambda pipe: pipe("a", valence=[1, 2], arousal=0), "got 2 items for 1 prompt; give"),
        (lambda pipe: pipe(["a", "b"], emotion=["awe", "aw"]), "unknown emotion 'aw'"),
        (lambda pipe: pipe(["a", "b"], emotion=["awe", ["awe"]]), "emotion of a request; got ['"),
        (lambda pipe: pipe(["a", "b"], valence=[1, None], arousal=0), "go together"),
        (lambda pipe: pipe("a", valence=np.array("1"), arousal=0), "valence; got array('1'"),
        (lambda pipe: pipe("a", emotion=""), "unknown emotion ''"),
        (
            lambda pipe: pipe([ImageRequest(prompt="a"), "b"], emotion=["awe", "fear"]),
            "emotion beside an ImageRequest",
        ),
        (lambda pipe: pipe(3), "this is not a request; got int 3; expected a prompt"),
        (lambda pipe: pipe(None), "this is not a request; got NoneType None"),
        (lambda pipe: pipe({"prompt": "a"}), "this is not a request; got dict"),
        (lambda pipe: pipe(["a", 3]), "item 1 is not a request; got int 3"),
        (lambda pipe: pipe([["a"]]), "item 0 is not a request; got list"),
        (lambda pipe: pipe(""), "an empty request"),
        (lambda pipe: pipe(), "an empty request"),
        (lambda pipe: pipe("a", emotion="aw"), "unknown emotion 'aw'"),
        (lambda pipe: pipe("a", emotion=3), "the emotion of a request; got 3"),
        (lambda pipe: pipe("a", valence=1), "valence and arousal go together"),
        (lambda pipe: pipe("a", valence=9, arousal=0), "valence is outside its scale; got 9"),
        (lambda pipe: pipe("a", valence="1", arousal=0), "valence; got '1'; expected a number"),
        (lambda pipe: pipe("a", valence=True, arousal=0), "valence; got True"),
        (lambda pipe: pipe(ImageRequest(prompt="a"), emotion="awe"), "beside an ImageRequest"),
        (lambda pipe: pipe(ImageRequest(prompt=None)), "the prompt of a request; got None"),
        (lambda pipe: pipe("a", seed=-1), "seed; got -1; expected 0 or more"),
        (lambda pipe: pipe("a", seed=1.5), "seed; got 1.5"),
        (lambda pipe: pipe("a", seed="7"), "seed; got '7'"),
        (lambda pipe: pipe("a", seed=[1, 2]), "each image needs a seed; got 2 for 1 images"),
        (lambda pipe: pipe("a", num_images_per_prompt=0), "num_images_per_prompt"),
    ],
)
def test_what_is_not_a_request(pipe, call, message):
    with pytest.raises(UserError) as caught:
        call(pipe)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- callback, progress bar, repr, devices


def test_the_callback_sees_and_changes_every_step(pipe):
    seen = []

    def watch(pipeline, step, time, tensors):
        seen.append((pipeline is pipe, step, float(time), tuple(tensors["latents"].shape)))

    few = {"seed": 1, "num_inference_steps": 3}
    plain = pipe("a boat", **few)
    assert same(pipe("a boat", callback_on_step_end=watch, **few), plain)
    shape = (1, *pipe.model.autoencoder.latent_shape)
    assert [(own, step, size) for own, step, _, size in seen] == [
        (True, n, shape) for n in range(3)
    ]
    assert [time for *_, time, _ in seen] == sorted((time for *_, time, _ in seen), reverse=True)
    zero = lambda p, n, t, tensors: {"latents": torch.zeros_like(tensors["latents"])}  # noqa: E731
    found = pipe("a boat", callback_on_step_end=zero, **few)
    assert same(found, pipe("a tree", callback_on_step_end=zero, **few))  # of zero latents
    assert not same(found, plain)


def test_the_progress_bar_counts_steps_and_is_off_by_default(pipe, capfd):
    pipe("a boat", num_inference_steps=3)
    assert capfd.readouterr().err == ""
    out = io.StringIO()
    pipe.set_progress_bar_config(file=out, mininterval=0, desc="drawing")
    pipe("a boat", num_inference_steps=3)
    pipe.set_progress_bar_config(disable=True)
    assert "drawing" in out.getvalue()
    assert "3/3" in out.getvalue()


def test_a_pipeline_and_its_results_have_short_representations(pipe):
    assert repr(pipe).startswith("EmoSymPipeline(")
    assert f"{pipe.model.config.reasoning_tokens} reasoning tokens" in repr(pipe)
    assert "cpu" in repr(pipe)
    seen = Understanding(
        emotion="awe",
        probabilities={"awe": 0.875, "fear": 0.125},
        affect=Affect(1.25, -0.5),
        text="<think>tall</think><answer>Emotion: awe</answer>",
    )
    assert repr(seen) == (
        "Understanding(awe 88%, valence +1.25, arousal -0.50, answer 'Emotion: awe')"
    )
    assert (seen.thought, seen.answer) == ("tall", "Emotion: awe")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>a</think><answer>b</answer>", ("a", "b")),
        ("<think> a\n</think>\n<answer>\nb </answer>", ("a", "b")),
        ("<THINK>a</THINK><Answer>b</Answer>", ("a", "b")),
        ("b", ("", "b")),
        ("<answer>b</answer>", ("", "b")),
        ("<answer>b", ("", "b")),
        ("<think>a</think>b", ("a", "b")),
        ("<think>a", ("a", "")),
        ("<think>a<answer>b</answer>", ("a", "b")),
        ("<answer>x</answer><answer>b</answer>", ("", "b")),
        ("", ("", "")),
        ("<answer></answer>", ("", "")),
        ("a </answer>", ("", "a")),
    ],
)
def test_an_answer_and_its_thought(text, parts):
    assert split_answer(text) == parts


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(pipe):
    for call in (
        lambda: EmoSymPipeline.from_pretrained("emosym-tiny", device="cuda"),
        lambda: pipe.to("cuda"),
        lambda: EmoSymPipeline.from_pretrained("emosym-tiny", device=torch.device("cuda:1")),
    ):
        with pytest.raises(
            UserError, match=r"cannot use the device 'cuda.*expected cpu, cuda, cuda:"
        ):
            call()


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_without_a_name_the_device_is_that_of_the_command(there, device, monkeypatch):
    """The GPU if there is one."""
    from emosym.inference.placement import default_device, usable_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert usable_device(None) == default_device() == device


# --- import


def test_the_examples_of_the_docstrings_run():
    failed, tried = doctest.testmod(module, verbose=False)
    assert failed == 0
    assert tried >= 5


def test_importing_emosym_is_light_and_names_what_it_has():
    assert emosym.EmoSymPipeline is EmoSymPipeline
    assert emosym.ImageRequest is ImageRequest
    assert {"EmoSymPipeline", "__version__"} <= set(dir(emosym))
    with pytest.raises(AttributeError, match="has no attribute 'Pipeline'"):
        emosym.Pipeline  # noqa: B018
    code = (
        "import sys, emosym\n"
        "assert emosym.__version__.count('.') >= 1\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
        "from emosym import EmoSymPipeline\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
