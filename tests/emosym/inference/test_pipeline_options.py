"""Options of the pipeline that no image, device or weight can have."""

from __future__ import annotations

import math

import pytest
import torch

from emosym.errors import UserError
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
