from __future__ import annotations

from pathlib import Path

import pytest

from emosym.errors import UserError
from emosym.records import Sample
from eval.tasks.questions import (
    is_question_file,
    named_tasks,
    questions_of_file,
    questions_of_split,
)


def test_tasks_are_named_in_a_list() -> None:
    assert named_tasks("") == []
    assert named_tasks("valence, ranking,") == ["valence", "ranking"]
    with pytest.raises(UserError, match=r"unknown task 'valense'.*did you mean 'valence'"):
        named_tasks("ranking,valense")


def test_a_manifest_is_no_file_of_questions() -> None:
    assert is_question_file(Path("Ebench_1_data.json"))
    assert not is_question_file(Path("data/manifest.jsonl"))
    assert not is_question_file(Path("data"))


def test_only_the_test_split_is_asked() -> None:
    samples = [
        Sample(id=split, image=Path(f"{split}.png"), split=split, emotion="awe")
        for split in ("train", "val", "test")
    ]
    (question,) = questions_of_split(samples, ["dominant"], 0, Path("data"))
    assert question.images == (Path("test.png"),)
    assert question.truth == {"dominant emotion": "awe"}
    with pytest.raises(UserError, match="data has no held-out question of valence, dominance"):
        questions_of_split(samples, ["valence", "dominance"], 0, Path("data"))


def test_a_file_of_questions_needs_the_folder_of_its_images() -> None:
    with pytest.raises(UserError, match=r"q\.json names images; .*give it with --images"):
        questions_of_file(Path("q.json"), None, [])
