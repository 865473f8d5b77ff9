from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from data_tools.affectworld.world import write_world
from data_tools.dataset import dataset_stats, open_dataset, validate_dataset
from data_tools.manifest import write_manifest
from emosym.errors import UserError
from emosym.records import Sample


def test_a_manifest_file_and_its_folder_open_alike(tmp_path, picture):
    sample = Sample(id="1", image=picture(tmp_path / "a.jpg"), split="train")
    write_manifest(tmp_path / "manifest.jsonl", [sample])
    assert open_dataset(tmp_path) == open_dataset(tmp_path / "manifest.jsonl") == [sample]


def test_a_world_opens_in_place_and_nothing_is_written(tmp_path):
    write_world(tmp_path / "w", 16, seed=0)
    before = sorted(path for path in tmp_path.rglob("*"))
    samples = open_dataset(tmp_path / "w")
    assert len(samples) == 16
    assert all(sample.image.is_file() and sample.image.is_absolute() for sample in samples)
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_broken_dataset_in_place_is_told_with_the_fix(tmp_path):
    write_world(tmp_path / "w", 16, seed=0)
    (tmp_path / "w" / "image" / "awe" / "awe_00000.jpg").unlink()
    (tmp_path / "w" / "image" / "fear" / "fear_00001.jpg").write_bytes(b"")
    with pytest.raises(UserError) as error:
        open_dataset(tmp_path / "w")
    assert "has 2 invalid of 16 rows" in str(error.value)
    assert "emosym data import emoset" in str(error.value)


def test_missing_unknown_and_empty(tmp_path):
    with pytest.raises(UserError, match="no dataset at"):
        open_dataset(tmp_path / "none")
    with pytest.raises(UserError) as error:
        open_dataset(tmp_path)
    for layout in ("manifest.jsonl", "EmoSet", "AffectWorld", "OASIS"):
        assert layout in str(error.value)
    (tmp_path / "info.json").write_text("{}")
    (tmp_path / "train.json").write_text("[]")
    with pytest.raises(UserError, match="has no samples"):
        open_dataset(tmp_path)


def test_stats_by_hand(tmp_path):
    def sample(name, split, emotion, valence):
        return Sample(id=name, image=tmp_path / name, split=split, emotion=emotion, valence=valence)

    stats = dataset_stats(
        [
            sample("1", "train", "awe", 1.0),
            sample("2", "train", "awe", 3.0),
            sample("3", "train", None, -1.0),
            sample("4", "test", "fear", None),
        ]
    )
    assert stats == {
        "samples": 4,
        "splits": {"train": 3, "test": 1},
        "emotions": {"train": {"awe": 2, "unlabelled": 1}, "test": {"fear": 1}},
        # mean 1, deviations 0, 2, -2: variance 8/3.
        "valence": {
            "count": 3,
            "mean": 1.0,
            "std": pytest.approx((8 / 3) ** 0.5),
            "min": -1.0,
            "max": 3.0,
        },
        "questions": {
            "affect": 4,
            "valence": 3,
            "arousal": 0,
            "dominance": 0,
            "ranking": 0,
            "dominant": 3,
            # Of train: three levels of valence; both awes evoke the same emotion; two pairs on the
            # same level or not; two with a higher valence (the third would unbalance either).
            "perception": 3 + 1 + 2 + 2,
            "description": 0,
            "criticise": 0,
            "rewrite": 0,
        },
    }


def test_oasis_opens_in_place(shared):
    samples = open_dataset(shared / "oasis")
    assert len(samples) == 639
    assert dataset_stats(samples)["valence"]["mean"] == pytest.approx(0.3795, abs=1e-4)


def piped(place: Path) -> Path:
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    return place


@pytest.mark.parametrize("name", ["manifest.jsonl", "info.json", "test.json", "OASIS.csv"])
@pytest.mark.parametrize("use", [open_dataset, validate_dataset])
def test_a_pipe_in_a_dataset_is_named_and_not_waited_for(tmp_path, use, name):
    write_world(tmp_path / "w", 16, seed=0)
    if name == "OASIS.csv":
        (tmp_path / "w" / "info.json").unlink()
    place = piped(tmp_path / "w" / name)
    with pytest.raises(UserError) as error:
        use(tmp_path / "w")
    assert str(error.value) == (
        f"{place} is not a regular file (a folder, a pipe, a device or a broken link); expected a"
        " file of the dataset in that place; put the file itself there"
    )


def test_a_pipe_as_a_dataset_or_an_image_is_not_called_missing(tmp_path):
    with pytest.raises(UserError, match=r"cannot read manifest .*; got no regular file"):
        open_dataset(piped(tmp_path / "pipe"))
    write_world(tmp_path / "w", 16, seed=0)
    piped(tmp_path / "w" / "image" / "awe" / "awe_00000.jpg")
    with pytest.raises(UserError, match=r"'image/awe/awe_00000.jpg' is not a regular file \(a fol"):
        open_dataset(tmp_path / "w")


def test_an_endless_path_is_refused_in_time(tmp_path):
    """Following the links of this path would take hours."""
    record = {"id": "1", "image": "x/" * 10_000_000, "split": "train"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(record))
    with pytest.raises(UserError) as error:
        open_dataset(tmp_path)
    start = f"{tmp_path / 'manifest.jsonl'}:1: image: path '{'x/' * 39}x… is longer than 4096 chara"
    assert str(error.value).startswith(start)
