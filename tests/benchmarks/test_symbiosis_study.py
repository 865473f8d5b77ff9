"""Each part of the study at miniature size: its arms are paired, and it continues where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.symbiosis.gradient import FROZEN, GRADIENT, NONE, TIME
from benchmarks.symbiosis.scores import DRAWING, UNDERSTANDING
from benchmarks.symbiosis_study import main
from data_tools.dataset import open_dataset
from emosym.errors import UserError
from tests.benchmarks import miniature
from tests.benchmarks.miniature import PARTS, distance, weights
from tests.train import probes
from tests.train.processes import in_ranks

TRAININGS = {
    "understander": {
        "knowledge", "knowledge-knowledge", "knowledge-rl", "drawing",
        "knowledge-knowledge-drawing", "knowledge-rl-drawing",
    },
    "gradient": {
        "shared", "no-generate", "generate-no-gradient", "generate-gradient",
        "no-generate-equal-time",
    },
    "tokens": {"k0-knowledge", "k1", "k4-knowledge"},
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoo") / "model"
    in_ranks(probes.write_model, folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("study")
    return {name: folder / name for name in PARTS}


@pytest.fixture(scope="module")
def understander(folders, model) -> dict[str, Any]:
    [found] = in_ranks(miniature.study, folders["understander"], model, "understander")
    return found


@pytest.fixture(scope="module")
def gradient(folders, model) -> dict[str, Any]:
    [found] = in_ranks(miniature.study, folders["gradient"], model, "gradient")
    return found


@pytest.fixture(scope="module")
def tokens(folders, model) -> dict[str, Any]:
    [found] = in_ranks(miniature.study, folders["tokens"], model, "tokens")
    return found


def steps(run: Path, phase: str) -> list[dict[str, Any]]:
    """Return the logged metrics of the steps of a phase."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["phase"] == phase]


@pytest.mark.parametrize("name", PARTS)
def test_a_part_continues_where_it_was(name, folders, request):
    found = request.getfixturevalue(name)
    part = PARTS[name]
    assert [row["arm"] for row in found["rows"][0]] == list(part.arms)
    for row in found["rows"][0]:
        assert row.keys() == {"arm", "seed", *part.metrics, *part.facts}
    # The second time nothing is run; the third time a row is measured again, of the same training.
    assert found["files"][0] == found["files"][1] == found["files"][2]
    assert found["rows"][0] == found["rows"][1] == found["rows"][2]
    assert found["tables"][0] == found["tables"][1] == found["tables"][2]
    assert (folders[name] / "table.md").read_text() == found["tables"][0]
    assert (folders[name] / "plot.png").read_bytes().startswith(b"\x89PNG")
    runs = {path.parent.name for path in folders[name].glob("*/report.json")}
    assert runs == {f"{training}-0" for training in TRAININGS[name]}


def test_generators_start_alike_and_see_the_same(understander, folders):
    folder = folders["understander"]
    start = weights(folder / "start-0", "generator")
    learned = {"": folder / "start-0"} | {
        f"{name}-": folder / f"{name}-0" / "model"
        for name in ("knowledge-knowledge", "knowledge-rl")
    }
    sources = []
    for name, model in learned.items():
        assert distance(weights(model, "generator"), start) == 0
        run = folder / f"{name}drawing-0"
        assert distance(weights(run / "model", "generator"), start) > 0
        assert f"model: {model}" in (run / "config.yaml").read_text()
        sources.append([row["generate/from_image"] for row in steps(run, "generate")])
    assert sources[0] == sources[1] == sources[2]
    assert len(sources[0]) == 4


def test_understanders_learn_what_their_arm_says_and_are_then_frozen(understander, folders):
    folder = folders["understander"]
    found = {
        name: weights(folder / name / "model", "understander")
        for name in ("drawing-0", "knowledge-0", "knowledge-knowledge-0", "knowledge-rl-0")
    }
    assert distance(found["drawing-0"], weights(folder / "start-0", "understander")) == 0
    for name in ("knowledge-knowledge-0", "knowledge-rl-0"):
        assert distance(found[name], found["knowledge-0"]) > 0
        drawing = folder / f"{name.removesuffix('-0')}-drawing-0" / "model"
        assert distance(weights(drawing, "understander"), found[name]) == 0
    assert distance(found["knowledge-rl-0"], found["knowledge-knowledge-0"]) > 0


def test_the_generators_loss_reaches_the_understander_in_one_arm_only(gradient, folders):
    folder = folders["gradient"]
    runs = {
        arm: folder / f"{arm.replace(', ', '-').replace(' ', '-')}-0"
        for arm in (NONE, FROZEN, GRADIENT)
    }
    for arm, run in runs.items():
        drawn = steps(run, "generate")
        assert len(drawn) == (0 if arm == NONE else 6)
        assert all(("lr/understander" in row) == (arm == GRADIENT) for row in drawn)
        # Without its own supervised losses: what it adds is the generator's loss.
        assert all(row["generate/loss"] == row["generate/flow"] for row in drawn)
    found = {arm: weights(run / "model", "understander") for arm, run in runs.items()}
    # The same batches in another order: rounding alone.
    rounding = distance(found[FROZEN], found[NONE])
    assert distance(found[GRADIENT], found[FROZEN]) > 10 * rounding
    first = [steps(run, "compress")[0]["compress/loss"] for run in runs.values()]
    assert first[0] == first[1] == first[2]


def test_the_last_arm_takes_the_steps_that_fit_in_the_time(gradient):
    rows = {row["arm"]: row for row in gradient["rows"][0]}
    done = {arm: (row["compress"], row["generate"]) for arm, row in rows.items()}
    assert done[NONE] == (3, 0)
    assert done[FROZEN] == done[GRADIENT] == (3, 6)
    assert done[TIME][0] > 3
    assert done[TIME][1] == 0


def test_few_images_have_a_label(gradient, folders):
    labelled, mixed = (
        open_dataset(folders["gradient"] / f"{name}-0.jsonl") for name in ("labelled", "mixed")
    )
    held_out = [sample for sample in labelled if sample.split == "test"]
    assert held_out == [sample for sample in mixed if sample.split == "test"]
    known = {sample.image for sample in labelled if sample.split == "train"}
    assert len(known) == 8
    train = [sample for sample in mixed if sample.split == "train"]
    for sample in train:
        assert (sample.emotion is not None) == (sample.image in known)
    bare = [sample for sample in train if sample.image not in known]
    told = ("valence", "arousal", "dominance", "emotional_prompt", "knowledge", "votes")
    assert {getattr(sample, name) for sample in bare for name in told} == {None}
    assert all(sample.prompt and not sample.attributes for sample in bare)
    copies = len(train) - len(bare)
    assert copies % 8 == 0
    assert abs(copies - len(bare)) <= 4
    world = [s for s in open_dataset(folders["gradient"] / "world") if s.split == "train"]
    assert len(bare) == len(world) - 8


def test_arms_differ_in_their_tokens_and_texts(tokens, folders):
    folder = folders["tokens"]
    for name, count in {"k0-knowledge": 0, "k1": 1, "k4-knowledge": 4}.items():
        run = folder / f"{name}-0"
        found = json.loads((run / "model" / "emosym.json").read_text())
        assert found["model"]["reasoning_tokens"] == count
        [row] = steps(run, "compress")
        assert ("compress/language" in row) == ("knowledge" in name)
        assert ("compress/knowledge" in row) == (name == "k4-knowledge")
    sources = [
        [row["generate/from_image"] for row in steps(folder / f"{name}-0", "generate")]
        for name in ("k0-knowledge", "k1", "k4-knowledge")
    ]
    assert sources[0] == sources[1] == sources[2]


def test_what_is_measured_is_held_out_and_has_titles(understander):
    assert PARTS["understander"].metrics == DRAWING | UNDERSTANDING
    for row in understander["rows"][0]:
        assert 0 <= row["label"] <= 1
        assert 0 <= row["accuracy"] <= 1


def test_an_unknown_part_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="did you mean 'tokens'"):
        main(tmp_path / "out", "token", 1)
    assert not (tmp_path / "out").exists()
