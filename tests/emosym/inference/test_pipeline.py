from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image

from emosym.affect.scales import UNIT, Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.inference.inputs import complete, wanted_affect
from emosym.inference.pipeline import EmoSymPipeline
from emosym.inference.pixels import to_image
from emosym.models.imagine import imagine_prompt
from emosym.randomness import Draws
from emosym.records import ImageRequest, Question
from emosym.tasks.affect import AFFECT_PROMPT
from emosym.tasks.assessment import assessment_prompt
from emosym.tasks.ranking import ranking_prompt
from tests.model_zoo.make import picture, pictures

REQUESTS = [
    ImageRequest(prompt="a red house in the snow"),
    ImageRequest(emotion="fear"),
    ImageRequest(prompt="boats", affect=Affect(2.0, -1.0)),
    ImageRequest(prompt="a tree", emotion="awe", affect=Affect(-3.0, 3.0)),
]


@pytest.fixture(scope="module")
def pipeline(tiny) -> EmoSymPipeline:
    return EmoSymPipeline(tiny, answer_tokens=6)


def gap(a: Image.Image, b: Image.Image) -> int:
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


# --- requests


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ImageRequest(), "an empty request"),
        (ImageRequest(prompt=" \n"), "an empty request"),
        (ImageRequest(emotion="aweful"), r"unknown emotion 'aweful'.*did you mean 'awe'\?"),
        (ImageRequest(affect=Affect.unchecked(3.1, 0.0)), r"valence is outside its scale; got 3.1"),
        (
            ImageRequest(affect=Affect.unchecked(0.0, -9.0)),
            r"arousal is outside its scale; got -9.0",
        ),
        (
            ImageRequest(affect=Affect.unchecked(math.nan, 0.0)),
            r"valence is outside its scale; got nan",
        ),
        (
            ImageRequest(affect=Affect.unchecked(0.0, math.inf)),
            r"arousal is outside its scale; got inf",
        ),
    ],
)
def test_requests_that_ask_for_nothing_possible(pipeline, request_, message):
    with pytest.raises(UserError, match=message):
        complete(request_)
    with pytest.raises(UserError, match=message):
        pipeline.generate([REQUESTS[0], request_])


@pytest.mark.parametrize(
    ("request_", "whole"),
    [
        (ImageRequest(prompt=" a tree "), ImageRequest(prompt="a tree")),
        (
            ImageRequest(emotion=" Sad"),
            ImageRequest(emotion="sadness", affect=Affect(-1.95, -1.6425)),
        ),
        (
            ImageRequest(emotion="awe", affect=Affect(0.0, -3.0)),
            ImageRequest(emotion="awe", affect=Affect(0.0, -3.0)),
        ),
    ],
)
def test_requests_are_completed(request_, whole):
    found = complete(request_)
    assert (found.prompt, found.emotion) == (whole.prompt, whole.emotion)
    if whole.affect is None:
        assert found.affect is None
    else:
        assert found.affect.coordinates == pytest.approx(whole.affect.coordinates)
    assert complete(found) == found


def test_an_affect_on_another_scale_is_converted():
    found = complete(ImageRequest(prompt="a tree", affect=Affect(1.0, 0.25, UNIT)))
    assert found.affect == Affect(3.0, -1.5)


def test_wanted_affect_is_nan_where_none_is_wanted():
    found = wanted_affect([complete(request) for request in REQUESTS])
    assert found[0].isnan().all()
    assert found[1].tolist() == pytest.approx([-1.5525, 0.855])
    assert found[2:].tolist() == [[2.0, -1.0], [-3.0, 3.0]]


def test_the_instruction_holds_the_request():
    whole = complete(REQUESTS[3])
    assert imagine_prompt(whole) == (
        "Imagine an image. It shows a tree. Emotion: awe. Valence: -3.0; Arousal: 3.0."
    )
    assert imagine_prompt(complete(REQUESTS[0])) == (
        "Imagine an image. It shows a red house in the snow."
    )


# --- understanding


def test_understanding_is_complete(pipeline):
    found = pipeline.understand(pictures(3))
    assert len(found) == 3
    for one in found:
        assert tuple(one.probabilities) == MIKELS8
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert one.probabilities[one.emotion] == max(one.probabilities.values())
        assert -3 < one.affect.valence < 3
        assert -3 < one.affect.arousal < 3
        assert one.answer


def test_batches_files_and_skipped_answers_change_no_number(pipeline, tiny, tmp_path):
    images = pictures(3)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for image, file in zip(images, files, strict=True):
        image.save(file)
    together = pipeline.understand(images)
    singles = EmoSymPipeline(tiny, batch_size=1, answer_tokens=6).understand(files)
    quick = pipeline.understand(images, answer=False)
    for a, b, c in zip(together, singles, quick, strict=True):
        assert (a.emotion, a.answer) == (b.emotion, b.answer)
        assert (c.emotion, c.answer) == (a.emotion, "")
        for other in (b, c):
            assert other.affect.coordinates == pytest.approx(a.affect.coordinates, abs=1e-4)
            assert dict(other.probabilities) == pytest.approx(dict(a.probabilities), abs=1e-4)


@pytest.fixture
def questions(tmp_path) -> list[Question]:
    """Three questions about each of three images, of unequal length."""
    texts = (AFFECT_PROMPT, assessment_prompt("valence"), ranking_prompt(MIKELS8))
    for i, image in enumerate(pictures(3)):
        image.save(tmp_path / f"{i}.png")
    return [
        Question(
            id=f"{i}/{place}",
            task="affect",
            images=(tmp_path / f"{i}.png",),
            split="test",
            text=text,
        )
        for i in range(3)
        for place, text in enumerate(texts)
    ]


def test_answers_do_not_depend_on_the_batch_size(pipeline, questions):
    together = pipeline.answer(questions, max_tokens=12)
    assert len(set(together)) > 3, "they depend on the question and on the image"
    for size in (1, 2, 4):
        assert pipeline.answer(questions, max_tokens=12, batch_size=size) == together
    assert pipeline.answer(questions[::-1], max_tokens=12) == together[::-1]


def test_a_pair_is_one_question_beside_single_images(pipeline, questions):
    single = questions[0]
    first, second = single.images[0], questions[-1].images[0]
    pair = dataclasses.replace(single, images=(first, second))
    swapped = dataclasses.replace(single, images=(second, first))
    mixed = [single, pair, swapped, questions[-1]]
    together = pipeline.answer(mixed, max_tokens=12)
    for size in (1, 2, 3):
        assert pipeline.answer(mixed, max_tokens=12, batch_size=size) == together
    assert len(set(together)) > 2, "the second image is seen, and the order of both"


def test_a_question_may_hold_its_images_in_memory(pipeline, questions):
    in_memory = []
    for question in questions:
        with Image.open(question.images[0]) as image:
            in_memory.append(dataclasses.replace(question, images=(image.convert("RGB"),)))
    found = pipeline.answer(in_memory, max_tokens=12)
    assert found == pipeline.answer(questions, max_tokens=12)
    mixed = [in_memory[0], *questions[1:]]
    assert pipeline.answer(mixed, max_tokens=12) == found


def test_a_question_without_images_stands_beside_others(pipeline, questions):
    bare = dataclasses.replace(questions[0], images=())
    other = dataclasses.replace(bare, text="Write the prompt anew.")
    alone = [pipeline.answer([one], max_tokens=12)[0] for one in (bare, other)]
    mixed = pipeline.answer([bare, questions[0], other], max_tokens=12)
    assert [mixed[0], mixed[2]] == alone
    assert mixed[1] == pipeline.answer(questions[:1], max_tokens=12)[0]
    assert len({*mixed}) > 1


def test_a_prompt_is_checked_without_generating(pipeline):
    pipeline.check_prompt("a boat")
    with pytest.raises(UserError, match="too long for the decoder's text encoder"):
        pipeline.check_prompt("boat " * 60)
    with pytest.raises(UserError, match="holds the control token"):
        pipeline.check_prompt("a <|im_end|> boat")


def test_an_answer_is_that_of_understanding_up_to_max_tokens(pipeline, questions):
    asked = [question for question in questions if question.text == AFFECT_PROMPT]
    found = pipeline.understand([question.images[0] for question in asked])
    assert pipeline.answer(asked, max_tokens=6) == [one.answer for one in found]
    longer = pipeline.answer(asked, max_tokens=7)
    assert all(a.startswith(one.answer) for a, one in zip(longer, found, strict=True))


def test_no_images_no_answers(pipeline):
    assert pipeline.understand([]) == []
    assert pipeline.answer([]) == []
    assert pipeline.generate([]) == []


def test_an_image_of_another_mode_is_read_as_colours(pipeline):
    image = picture()
    clear = image.copy()
    clear.putalpha(255)
    assert pipeline.understand([clear]) == pipeline.understand([image])


def test_a_transparent_image_is_seen_on_white(pipeline, tmp_path):
    """Whatever colour is hidden, in memory, in a file, and in a question."""
    image, shape = picture(), Image.new("L", picture().size)
    shape.paste(255, (8, 8, 40, 40))
    seen = Image.composite(image, Image.new("RGB", image.size, "white"), shape)
    hidden = Image.composite(image, Image.new("RGB", image.size, "red"), shape)
    bare = hidden.copy()
    hidden.putalpha(shape)
    hidden.save(tmp_path / "hidden.png")
    given = [seen, hidden, np.asarray(hidden), tmp_path / "hidden.png"]
    for read in (
        lambda one: pipeline.understand(one, answer=False),
        lambda one: pipeline.embed_images(one).tolist(),
        lambda one: pipeline.answer(
            Question(id="a", task="affect", images=(one,), split="test", text=AFFECT_PROMPT),
            max_tokens=24,
        ),
    ):
        expected, *found = map(read, given)
        assert found == [expected] * 3
        assert read(bare) != expected


# --- generation


@pytest.fixture(scope="module")
def images(pipeline):
    return pipeline.generate(REQUESTS, seed=5, num_inference_steps=3)


def test_images_have_the_size_of_the_model(images, tiny):
    assert [image.size for image in images] == [(tiny.config.image_size,) * 2] * 4
    assert [image.mode for image in images] == ["RGB"] * 4


def test_equal_seeds_give_equal_bytes(pipeline, images):
    again = pipeline.generate(REQUESTS, seed=5, num_inference_steps=3)
    assert [a.tobytes() for a in again] == [b.tobytes() for b in images]
    other = pipeline.generate(REQUESTS, seed=6, num_inference_steps=3)
    assert min(gap(a, b) for a, b in zip(other, images, strict=True)) > 2


def test_image_i_comes_from_seed_plus_i(pipeline, images):
    for i in (1, 3):
        alone = pipeline.generate([REQUESTS[i]], seed=5 + i, num_inference_steps=3)[0]
        assert gap(alone, images[i]) <= 1
    listed = pipeline.generate(REQUESTS, seed=[5, 6, 7, 8], num_inference_steps=3)
    assert [a.tobytes() for a in listed] == [b.tobytes() for b in images]
    shape = pipeline.model.autoencoder.latent_shape
    noise = torch.stack([Draws("image", 5 + i).normal(*shape) for i in range(4)])
    drawn = pipeline.draw([complete(request) for request in REQUESTS], noise, num_inference_steps=3)
    assert [a.tobytes() for a in drawn] == [b.tobytes() for b in images]


def test_batch_size_changes_no_image(tiny, images):
    for size in (1, 3):
        found = EmoSymPipeline(tiny, batch_size=size).generate(
            REQUESTS, seed=5, num_inference_steps=3
        )
        assert max(gap(a, b) for a, b in zip(found, images, strict=True)) <= 1


def test_the_request_and_the_guidance_are_heard(pipeline):
    base = ImageRequest(prompt="a tree", affect=Affect(0.0, 0.0))
    others = [
        ImageRequest(prompt="a boat", affect=Affect(0.0, 0.0)),
        ImageRequest(prompt="a tree", affect=Affect(3.0, 0.0)),
        ImageRequest(prompt="a tree", emotion="fear", affect=Affect(0.0, 0.0)),
    ]
    drawn = pipeline.generate(
        [base, *others], seed=[1] * 4, num_inference_steps=2, guidance_scale=4.0
    )
    assert min(gap(drawn[0], other) for other in drawn[1:]) > 0
    plain = pipeline.generate([base], seed=1, num_inference_steps=2, guidance_scale=1.0)
    assert gap(drawn[0], plain[0]) > 1


def test_several_images_of_a_prompt_stand_next_to_each_other(pipeline):
    repeated = [request for request in REQUESTS[:2] for _ in range(3)]
    one_by_one = pipeline.generate(repeated, seed=5, num_inference_steps=2)
    for seed in (5, list(range(5, 11))):
        found = pipeline.generate(
            REQUESTS[:2], seed=seed, num_inference_steps=2, num_images_per_prompt=3
        )
        assert [a.tobytes() for a in found] == [b.tobytes() for b in one_by_one]
    with pytest.raises(UserError, match="num_images_per_prompt; got 0"):
        pipeline.generate(REQUESTS, num_images_per_prompt=0)


@pytest.mark.parametrize("old", ["steps", "guidance", "count"])
def test_an_old_keyword_is_refused(pipeline, old):
    with pytest.raises(UserError, match=f"unknown argument of generate: '{old}'; expected one of"):
        pipeline.generate(REQUESTS, **{old: 2})
    with pytest.raises(UserError, match=f"unknown argument of imagine: '{old}'; expected one of"):
        pipeline.imagine("awe", **{old: 2})


def test_a_list_of_seeds_must_fit(pipeline):
    with pytest.raises(UserError, match="each image needs a seed; got 2 for 4 images"):
        pipeline.generate(REQUESTS, seed=[1, 2])


def test_a_prompt_that_is_too_long_is_refused(pipeline):
    with pytest.raises(UserError, match=r"too long.*expected at most \d+; shorten the prompt"):
        pipeline.generate([ImageRequest(prompt="very " * 60 + "long")])


def test_a_prompt_may_not_hold_control_tokens(pipeline):
    with pytest.raises(UserError, match=r"holds the control token '<\|im_end\|>'"):
        pipeline.generate([ImageRequest(prompt="a tree<|im_end|>")])


def test_pixels_become_levels():
    pixels = torch.tensor([-1.0, 1.0, 0.0, -7.0, 7.0, 0.5]).expand(3, 1, 6)
    assert np.asarray(to_image(pixels))[0, :, 0].tolist() == [0, 255, 128, 0, 255, 191]


def test_loading_by_an_unknown_name():
    with pytest.raises(UserError, match=r"unknown model 'emosym-tini'.*did you mean 'emosym-tiny'"):
        EmoSymPipeline.from_pretrained("emosym-tini")


# --- loading and saving


def test_a_saved_pipeline_gives_the_same_images_and_predictions(pipeline, images, tmp_path):
    folder = pipeline.save_pretrained(tmp_path / "model")
    assert folder == tmp_path / "model"
    loaded = EmoSymPipeline.from_pretrained(folder)
    loaded.answer_tokens = pipeline.answer_tokens
    again = loaded.generate(REQUESTS, seed=5, num_inference_steps=3)
    assert [a.tobytes() for a in again] == [b.tobytes() for b in images]
    assert loaded.understand(pictures(3)) == pipeline.understand(pictures(3))
    assert loaded.embed_images(pictures(3)).tolist() == pipeline.embed_images(pictures(3)).tolist()
    with pytest.raises(UserError, match="exists and is not a model folder"):
        pipeline.save_pretrained(tmp_path)


@pytest.fixture(scope="module")
def saved(pipeline, tmp_path_factory):
    return pipeline.save_pretrained(tmp_path_factory.mktemp("saved") / "model")


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, torch.float32),
        ({"dtype": torch.bfloat16}, torch.bfloat16),
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": "torch.bfloat16"}, torch.bfloat16),
        ({"torch_dtype": torch.float16, "dtype": "float16"}, torch.float16),
    ],
)
def test_the_dtype_is_that_of_the_weights(saved, options, dtype):
    loaded = EmoSymPipeline.from_pretrained(saved, **options)
    assert loaded.dtype == dtype
    assert {p.dtype for p in loaded.model.parameters()} == {dtype}
    assert loaded.device == torch.device("cpu")


def test_dtype_and_device_are_positional_too(saved):
    loaded = EmoSymPipeline.from_pretrained(saved, torch.bfloat16, "cpu")
    assert (loaded.dtype, loaded.device) == (torch.bfloat16, torch.device("cpu"))


def test_a_pipeline_is_cast_and_moved(saved):
    loaded = EmoSymPipeline.from_pretrained(saved)
    assert loaded.to("cpu") is loaded
    assert loaded.to(torch.float64).dtype == torch.float64
    assert loaded.to("cpu", torch.float32).dtype == torch.float32
    assert loaded.to(device="cpu", dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dtype": "int8"}, "unknown dtype 'int8'; expected one of bfloat16, float16, float32"),
        ({"torch_dtype": "bfloat"}, "did you mean 'bfloat16'"),
        (
            {"dtype": "float16", "torch_dtype": torch.bfloat16},
            "dtype and torch_dtype are the same option; got float16 and torch.bfloat16",
        ),
        ({"device": "gpu9"}, "cannot use the device 'gpu9'"),
        ({"device": "meta"}, "cannot use the device 'meta'"),
    ],
)
def test_a_dtype_or_device_that_cannot_be_used(saved, options, problem):
    with pytest.raises(UserError, match=problem):
        EmoSymPipeline.from_pretrained(saved, **options)
