from __future__ import annotations

import json

import pytest

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.inference.pipeline import EmoSymPipeline
from emosym.inference.png_metadata import read_png_metadata
from emosym.records import ImageRequest
from tests.emosym.cli.command import emosym, names_in, refused
from tests.model_zoo.chat_server import pictures, serving, text

WANTED = ("--valence", "-1.5", "--arousal", "2")


def other_lines(err: str) -> list[str]:
    """Return the lines of stderr but those of the progress, which a slow machine shows."""
    return [line for line in err.splitlines() if not line.startswith("refining ")]


@pytest.fixture(scope="module")
def refined(tmp_path_factory):
    """Two rounds of two images by the shipped model: the command's answer and its folder."""
    out = tmp_path_factory.mktemp("refined") / "out"
    done = emosym(
        *("refine", "--prompt", "a cat in the hills", *WANTED, "--rounds", 2, "--images", 2),
        *(
            "--epsilon",
            0,
            "--seed",
            3,
            "--num-inference-steps",
            2,
            "--keep",
            "--out",
            out,
            "--json",
        ),
    )
    assert other_lines(done.err) == []
    return done.json, out


def test_refine_writes_the_best_image_and_the_trace(refined):
    problem, out = refined
    assert names_in(out) == ["3.png", "4.png", "5.png", "6.png", "best.png", "trace.json"]
    assert json.loads((out / "trace.json").read_text("utf-8")) == problem
    assert problem["image"] == str(out / "best.png")
    assert problem["stopped"] == "all rounds drawn"
    assert problem["judge"] == problem["model"]
    drawings = [drawing for one in problem["rounds"] for drawing in one["drawings"]]
    assert [drawing["seed"] for drawing in drawings] == [3, 4, 5, 6]
    best = min(drawings, key=lambda drawing: drawing["error"])
    assert problem["best"].items() >= best.items()
    assert (out / "best.png").read_bytes() == (out / f"{best['seed']}.png").read_bytes()
    first, last = problem["rounds"]
    assert first["critique"]["words"]
    assert (first["kept"] is None) == (last["prompt"] != first["prompt"])
    assert last["critique"] is None


def test_the_numbers_are_those_of_the_shipped_model(refined):
    problem, out = refined
    pipeline = EmoSymPipeline.from_pretrained()
    for drawing in (d for one in problem["rounds"] for d in one["drawings"]):
        (seen,) = pipeline.understand([out / f"{drawing['seed']}.png"], answer=False)
        assert drawing["valence"] == pytest.approx(seen.affect.valence, abs=1e-4)
        assert drawing["arousal"] == pytest.approx(seen.affect.arousal, abs=1e-4)
        assert drawing["error"] == pytest.approx(
            abs(drawing["valence"] + 1.5) + abs(drawing["arousal"] - 2.0)
        )


def test_generate_draws_the_best_image_again(refined, tmp_path):
    problem, out = refined
    best = problem["best"]
    imprint = read_png_metadata(out / "best.png")
    assert imprint.request == ImageRequest(prompt=best["prompt"], affect=Affect(-1.5, 2.0))
    assert (imprint.seed, imprint.steps, imprint.model) == (best["seed"], 2, problem["model"])
    again = tmp_path / "again.png"
    done = emosym(
        *("generate", "--prompt", best["prompt"], *WANTED, "--seed", best["seed"]),
        *("--num-inference-steps", 2, "--out", again),
    )
    assert done.code == 0
    assert again.read_bytes() == (out / "best.png").read_bytes()


def test_feedback_through_the_state(tmp_path):
    """Images of a mixed state say so: their request and seed alone do not draw them."""
    out = tmp_path / "out"
    options = ("--rounds", 2, "--images", 2, "--num-inference-steps", 1, "--epsilon", 0, "--keep")
    done = emosym("refine", "--feedback", "state", *WANTED, *options, "--out", out)
    assert done.code == 0, done.err
    trace = json.loads((out / "trace.json").read_text("utf-8"))
    assert trace["feedback"] == "state"
    first, second = trace["rounds"]
    assert first["state"] is None
    assert sum(second["state"]["images"].values()) == pytest.approx(1)
    assert [*second["state"]["images"]] == ["0", "1"]
    assert sorted(second["state"]["emotions"]) == sorted(MIKELS8), "the shipped model's space"
    mixed = [read_png_metadata(out / f"{seed}.png").mixed_state for seed in range(4)]
    assert mixed == [False, False, True, True]
    best = trace["best"]
    assert read_png_metadata(out / "best.png").mixed_state == (best["round"] == 1)
    assert (out / "best.png").read_bytes() == (out / f"{best['seed']}.png").read_bytes()
    valence, arousal = second["state"]["valence"], second["state"]["arousal"]
    assert f"valence {valence:+.2f}, arousal {arousal:+.2f}" in done.out
    assert "of the request" in done.out


def test_the_control_and_another_judge_in_words(model, tmp_path):
    out = tmp_path / "out"
    done = emosym(
        *("refine", "--emotion", "awe", "--best-of", 3, "--judge", "emosym-tiny"),
        *("--num-inference-steps", 1, "--out", out, "--model", model),
    )
    assert (done.code, other_lines(done.err)) == (0, [])
    assert done.out.startswith("stopped: all rounds drawn\n")
    assert names_in(out) == ["best.png", "trace.json"]
    trace = json.loads((out / "trace.json").read_text("utf-8"))
    assert len(trace["rounds"][0]["drawings"]) == 3
    assert trace["judge"] != trace["model"]
    assert trace["request"]["valence"] == pytest.approx(1.3875)
    assert f"{trace['rounds'][0]['mean_error']:.2f}" in done.out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--prompt", "x"], "cannot be judged without a target; expected valence and arousal"),
        (["--emotion", "awe"], "there is no prompt to rewrite"),
        (["--prompt", "x", "--valence", "1"], "valence and arousal go together"),
        (["--prompt", "x", "--valence", "4", "--arousal", "0"], "valence is outside its scale"),
        (
            ["--prompt", "x", *WANTED, "--best-of", "3", "--rounds", "2"],
            "--rounds has no effect with --best-of",
        ),
        (
            ["--prompt", "x", *WANTED, "--best-of", "3", "--images", "2"],
            "--images has no effect with --best-of",
        ),
        (
            ["--prompt", "x", *WANTED, "--best-of", "3", "--feedback", "words"],
            "--feedback has no effect with --best-of",
        ),
        (["--emotion", "awe", "--feedback", "both"], "there is no prompt to rewrite"),
        (["--prompt", "x", *WANTED, "--feedback", "image"], "Invalid value for '--feedback'"),
        (
            ["--prompt", "x", *WANTED, "--best-of", "3", "--epsilon", "1"],
            "--epsilon has no effect with --best-of",
        ),
        (
            ["--prompt", "x", *WANTED, "--judge", "HTTP://x"],
            "needs the name of its model",
        ),
        (
            ["--prompt", "x", *WANTED, "--judge-model", "m"],
            "--judge-model has no effect without a URL",
        ),
        (
            ["--prompt", "x", *WANTED, "--judge-max-tokens", 9],
            "--judge-max-tokens has no effect without a URL",
        ),
        (
            ["--prompt", "x", *WANTED, "--num-inference-steps", "0"],
            "the number of inference steps; got 0",
        ),
        (["--prompt", "x", *WANTED, "--images", "1"], "Invalid value for '--images'"),
        (["--prompt", "x", *WANTED, "--epsilon", "nan"], "Invalid value for '--epsilon'"),
        (["--prompt", "x", *WANTED, "--epsilon", "-1"], "Invalid value for '--epsilon'"),
        (["--prompt", "x", *WANTED, "--rounds", "0"], "Invalid value for '--rounds'"),
        (["--prompt", "x", *WANTED], "no-such-model"),
    ],
)
def test_bad_input_is_an_error_before_a_model_is_loaded(options, problem, tmp_path):
    done = emosym("refine", *options, "--out", tmp_path / "out", "--model", "no-such-model")
    refused(done, problem)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_model_leaves_no_files(model, tmp_path):
    request = (
        "refine",
        *WANTED,
        "--out",
        tmp_path / "out",
        "--num-inference-steps",
        1,
        "--model",
        model,
    )
    refused(emosym(*request, "--prompt", "lake " * 60), "too long for the decoder's text encoder")
    refused(emosym(*request, "--prompt", "x", "--judge", "no-such-judge"), "no-such-judge")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    refused(emosym(*request, "--prompt", "x"), "already exists and is not an empty folder")
    assert names_in(tmp_path) == ["mine", "out"]


def test_a_served_model_judges_criticises_and_rewrites(model, tmp_path):
    """Its words decide: valence 1 and arousal 2 for every image, and the second prompt."""

    def script(handler, body):
        asked = text(body)
        if "Which emotion does this image evoke?" in asked:
            answer = "Emotion: awe; Valence: 1.0; Arousal: 2.0"
        elif len(pictures(body)) == 2:
            answer = "Suggestions: dark"
        else:
            answer = "a cat in the hills, dark"
        handler.say(f"<think></think><answer>{answer}</answer>")

    with serving(script) as server:
        done = emosym(
            *("refine", "--prompt", "a cat in the hills", *WANTED, "--rounds", 2, "--images", 2),
            *("--num-inference-steps", 1, "--judge", server.url, "--judge-model", "seer", "--json"),
            *("--out", tmp_path / "out", "--model", model),
        )
    assert other_lines(done.err) == []
    assert done.json["judge"] == f"{server.url} seer"
    assert [one["prompt"] for one in done.json["rounds"]] == [
        "a cat in the hills",
        "a cat in the hills, dark",
    ]
    assert {d["error"] for one in done.json["rounds"] for d in one["drawings"]} == {2.5}
    assert {body["model"] for body in server.requests} == {"seer"}


@pytest.mark.parametrize(
    ("options", "epsilon", "title"),
    [
        (
            ("--epsilon", 1.3),
            1.3,
            "near enough; the errors of valence and arousal sum to 2.50, below 2.60",
        ),
        (
            (),
            0.5,
            "all rounds drawn; the errors of valence and arousal sum to 2.50, not below 1.00",
        ),
    ],
)
def test_the_bound_of_near_enough_is_printed(model, tmp_path, options, epsilon, title):
    """The judge sees valence 1 and arousal 2, where -1.5 and 2 are wanted."""
    answer = "<think></think><answer>Emotion: awe; Valence: 1.0; Arousal: 2.0</answer>"
    with serving(lambda handler, body: handler.say(answer)) as server:
        done = emosym(
            *("refine", "--prompt", "a cat", *WANTED, "--rounds", 1, "--images", 2, *options),
            *("--num-inference-steps", 1, "--judge", server.url, "--judge-model", "seer"),
            *("--out", tmp_path / "out", "--model", model),
        )
    assert done.out.splitlines()[0] == f"stopped: {title} (twice --epsilon)"
    trace = json.loads((tmp_path / "out" / "trace.json").read_text("utf-8"))
    assert trace["epsilon"] == epsilon


def test_a_judge_that_is_down_leaves_no_files(model, tmp_path):
    with serving(lambda handler, body: None) as server:
        pass
    done = emosym(
        *(
            "refine",
            "--prompt",
            "a cat",
            *WANTED,
            "--rounds",
            1,
            "--images",
            2,
            "--num-inference-steps",
            1,
        ),
        *("--judge", server.url, "--judge-model", "seer", "--model", model),
        *("--out", tmp_path / "out"),
    )
    refused(done, server.url)
    assert list(tmp_path.iterdir()) == []
