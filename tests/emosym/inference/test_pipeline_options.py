"""Options of the pipeline that no image, device or weight can have."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

from emosym.errors import UserError
from emosym.inference.arguments import COUNTERPARTS
from emosym.inference.pipeline import EmoSymPipeline
from emosym.records import ImageRequest


@pytest.fixture(scope="module")
def pipeline(tiny) -> EmoSymPipeline:
    return EmoSymPipeline(tiny)


@pytest.mark.parametrize("count", [0, -1, True, 1.5, math.nan, "2", None])
def test_a_number_of_images_is_a_positive_integer(pipeline, count):
    request = ImageRequest(prompt="a boat", emotion="awe")
    for call in (
        lambda: pipeline.generate([request], num_images_per_prompt=count),
        lambda: pipeline.imagine("awe", count),
        lambda: pipeline.wanted("awe", count),
    ):
        with pytest.raises(UserError, match=r"num_images_per_prompt; got .*; expected 1 or more"):
            call()


@pytest.mark.parametrize(
    "option",
    [
        *({"num_inference_steps": value} for value in (0, True, 2.5, "3", math.nan, 1001)),
        *({"guidance_scale": value} for value in (-1, True, "2", math.nan, math.inf)),
    ],
)
def test_sampling_options_that_are_no_such_number(pipeline, option):
    with pytest.raises(UserError, match=r"got .*; expected (1 to 1000|a finite number)"):
        pipeline.generate([ImageRequest(prompt="a boat", emotion="awe")], **option)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nonsense"], "cannot use the device 'nonsense'"),
        (["float32"], "cannot use the device 'float32'"),
        (["cuda:99"], "cannot use the device 'cuda:99'"),
        (["meta"], "cannot use the device 'meta'"),
        (["gpu"], "cannot use the device 'gpu'; expected cpu, cuda, cuda:NUMBER or mps; a GPU is"),
        ([torch.int64], "the model cannot be moved or cast"),
        (["cpu", "float16"], "the model cannot be moved or cast"),
        ([{}], "the model cannot be moved or cast"),
    ],
)
def test_a_pipeline_that_cannot_be_moved_stays_as_it_was(pipeline, arguments, problem):
    with pytest.raises(UserError, match=problem):
        pipeline.to(*arguments)
    assert (pipeline.device.type, pipeline.dtype) == ("cpu", torch.float32)


@pytest.mark.parametrize("dtype", [3, float, torch.int64, torch.bool, "auto"])
def test_a_dtype_that_weights_cannot_have(dtype):
    for options in ({"dtype": dtype}, {"torch_dtype": dtype}):
        with pytest.raises(UserError, match=r"unknown dtype .*; expected one of bfloat16, float16"):
            EmoSymPipeline.from_pretrained(**options)


def test_a_device_of_a_wrong_type():
    with pytest.raises(UserError, match=r"cannot use the device '1\.5'"):
        EmoSymPipeline.from_pretrained(device=1.5)


def test_a_gpu_is_cuda():
    with pytest.raises(UserError) as caught:
        EmoSymPipeline.from_pretrained(device="gpu")
    assert str(caught.value) == (
        "cannot use the device 'gpu'; expected cpu, cuda, cuda:NUMBER or mps;"
        " a GPU is 'cuda', one of Apple 'mps'"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda pipe: pipe("a boat", generator=torch.Generator()),
            "generate has no argument 'generator'; use seed=, a number or one for each image",
        ),
        (
            lambda pipe: pipe("a boat", height=512, width=512),
            "generate has no argument 'height'; images have the size of the model's decoder",
        ),
        (
            lambda pipe: pipe("a boat", output_type="np"),
            "generate has no argument 'output_type'; images are always PIL images",
        ),
        (
            lambda pipe: pipe("a boat", negative_prompt="a cat"),
            "generate has no argument 'negative_prompt'; it is not supported: the guidance starts"
            " from an empty prompt",
        ),
        (
            lambda pipe: pipe.generate(prompt="a boat"),
            "generate has no argument 'prompt'; give it as the first argument",
        ),
        (
            lambda pipe: pipe.imagine("awe", guidance=2),
            "unknown argument of imagine: 'guidance'; expected one of emotion, guidance_scale,"
            " num_images_per_prompt, num_inference_steps, prompt, seed; did you mean"
            " 'guidance_scale'?",
        ),
        (
            lambda pipe: pipe.understand("a.png", answers=True),
            "unknown argument of understand: 'answers'; expected one of answer, images; did you"
            " mean 'answer'?",
        ),
        (
            lambda pipe: pipe.from_pretrained("emosym-tiny", device_map="auto"),
            "from_pretrained has no argument 'device_map'; use device=",
        ),
    ],
)
def test_an_argument_that_there_is_not(pipeline, call, message):
    with pytest.raises(UserError) as caught:
        call(pipeline)
    assert str(caught.value) == message


def test_no_counterpart_is_named_for_an_argument_that_there_is():
    methods = (
        EmoSymPipeline.generate,
        EmoSymPipeline.imagine,
        EmoSymPipeline.from_pretrained,
        EmoSymPipeline.understand,
    )
    taken = {name for method in methods for name in inspect.signature(method).parameters}
    assert taken & COUNTERPARTS.keys() == {"prompt"}  # of imagine; generate has it as its first
