from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest

from emosym.affect.scales import PUBLIC, UNIT
from emosym.affect.taxonomies import MIKELS8
from emosym.cli.files import expand_images
from emosym.cli.understand import TASK_NAMES, ask
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.records import Question, split_answer
from emosym.tasks.registry import TASKS, image_tasks
from model_zoo.quiet import quiet_libraries
from tests.emosym.cli.command import ROOT, emosym, names_in, refused, start


def test_understand_prints_the_json_of_the_contract(model, pictures):
    given = [pictures / "c.png", pictures / "b.jpg"]
    done = emosym("understand", *given, "--model", model, "--json")
    assert done.err == ""
    assert [record["image"] for record in done.json] == [str(path) for path in given]
    expected = EmoSymPipeline.from_pretrained(model).understand(given)
    for record, seen in zip(done.json, expected, strict=True):
        assert list(record) == [
            *("image", "emotion", "probabilities", "valence", "arousal"),
            *("answer", "thought", "unlike_training"),
        ]
        assert tuple(record["probabilities"]) == MIKELS8
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        best = max(record["probabilities"], key=record["probabilities"].get)
        assert record["emotion"] == best == seen.emotion
        assert (record["valence"], record["arousal"]) == seen.affect.coordinates
        assert record["answer"] == seen.answer
        assert all(PUBLIC.low <= record[key] <= PUBLIC.high for key in ("valence", "arousal"))


def test_understand_shows_people_a_line_for_each_image_of_a_folder(model, pictures):
    done = emosym("understand", pictures, "--model", model)
    assert (done.code, done.err) == (0, "")
    rows = [line for line in done.out.splitlines() if str(pictures) in line]
    names = ["a.png", "b.jpg", "c.png", "more/d.png"]
    assert [row.partition(": ")[0] for row in rows] == [str(pictures / name) for name in names]
    shape = r": (\w+) \d+%, valence [+-]\d\.\d\d, arousal [+-]\d\.\d\d"
    assert all(re.search(shape, row)[1] in MIKELS8 for row in rows)


def test_people_see_the_words_without_tags_and_within_their_terminal(pictures, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    image = pictures / "a.png"
    shown = emosym("understand", image).out
    (record,) = emosym("understand", image, "--json").json
    assert record["thought"]
    assert "<" not in record["thought"] + record["answer"]
    _, *words = shown.splitlines()
    assert words[-1].strip() == record["answer"]
    assert all(len(line) <= 80 and line.startswith("    ") for line in words)
    assert " ".join(shown.split()).endswith(f"{record['thought']} {record['answer']}")


@pytest.mark.parametrize("task", image_tasks()[1:])
def test_a_task_is_answered_in_words(model, pictures, task):
    given = [pictures / "c.png", pictures / "b.jpg"]
    done = emosym("understand", *given, "--model", model, "--task", task, "--json")
    assert done.code == 0
    asked = [
        Question(
            id=str(path),
            task=task,
            images=(path,),
            split="test",
            text=TASKS[task].prompt,
            scale=UNIT,
        )
        for path in given
    ]
    answers = EmoSymPipeline.from_pretrained(model).answer(asked)
    for record, path, words in zip(done.json, given, answers, strict=True):
        assert list(record) == ["image", "task", "answer", "thought", "value", "unlike_training"]
        assert (record["image"], record["task"]) == (str(path), task)
        assert (record["thought"], record["answer"]) == split_answer(words)


def test_what_an_answer_says_is_its_value(pictures):
    class Spoken:
        """A pipeline whose answers are known."""

        model = SimpleNamespace(training_images=None)

        def __init__(self, *facts: str) -> None:
            self.facts = facts

        def answer(self, questions: list[Question]) -> list[str]:
            return [f"<think></think><answer>{fact}</answer>" for fact in self.facts]

    def value(task: str, facts: str) -> object:
        (record,) = ask(Spoken(facts), task, [pictures / "a.png"])
        return record["value"]

    assert value("valence", "Valence: 0.7083") == 0.7083
    assert value("valence", "Valence: 1.5") is None, "off the scale of ratings"
    assert value("ranking", "Emotion ranking: awe, fear, anger") == ("awe", "fear", "anger")
    assert value("dominant", "Dominant emotion: awe") == "awe"
    assert value("dominant", "Dominant emotion: joy") is None, "none of Mikels' eight"
    assert value("description", "Fear: it is dark.") == "Fear: it is dark."


def test_people_see_the_value_of_a_task_beside_the_words(model, pictures):
    done = emosym("understand", pictures / "a.png", "--model", model, "--task", "dominant")
    assert done.code == 0
    (row,) = [line for line in done.out.splitlines() if "a.png" in line]
    assert row.rpartition(": ")[2] in {"-", *MIKELS8}


def test_help_lists_the_image_tasks():
    assert image_tasks() == TASK_NAMES.split(", ")


def test_an_unknown_task_is_refused_before_anything_is_read(tmp_path):
    done = emosym("understand", tmp_path / "gone.png", "--task", "valense")
    refused(done, "unknown task 'valense'", "did you mean 'valence'?", "affect, arousal")


def test_a_fresh_process_says_nothing_beside_its_answer(model, pictures):
    process = start("understand", pictures / "a.png", "--model", model, "--json")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert len(json.loads(out)) == 1


def test_a_library_user_hears_nothing_either():
    load = "EmoSymPipeline.from_pretrained('emosym-tiny')"
    code = f"from emosym.inference.pipeline import EmoSymPipeline; {load}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_only_the_named_notice_is_hushed(caplog):
    quiet_libraries()
    quiet_libraries()
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    with caplog.at_level(logging.WARNING):
        logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "why")
        logger.warning("this matters")
    assert [record.getMessage() for record in caplog.records] == ["this matters"]


def test_a_broken_image_is_named_and_nothing_is_printed(model, pictures, tmp_path):
    cut, empty = tmp_path / "cut.png", tmp_path / "empty.jpg"
    cut.write_bytes((pictures / "a.png").read_bytes()[:200])
    empty.touch()
    done = emosym("understand", pictures / "a.png", cut, empty, "--model", model, "--json")
    refused(done, "cannot read 2 of 3 images", f"{cut}: ", f"{empty}: file is empty (0 bytes)")


def test_images_that_are_not_there(model, tmp_path):
    gone = tmp_path / "gone.png"
    refused(emosym("understand", gone, "--model", model), f"no such image: {gone}")
    refused(emosym("understand", tmp_path, "--model", model), f"no images in the folder {tmp_path}")
    os.mkfifo(tmp_path / "pipe.png")
    for path in ("/dev/zero", tmp_path / "pipe.png", tmp_path):
        done = emosym("bank", "add", tmp_path / "bank", path, "--model", model)
        refused(done, f"no such image: {path}")
    assert names_in(tmp_path) == ["pipe.png"]


def test_folders_are_expanded_in_order_without_hidden_files(tmp_path, capsys):
    for name in ("b/2.JPG", "b/1.png", "b/notes.txt", "b/.thumbs/3.png", "b/.4.png", "z.data"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = expand_images([tmp_path / "z.data", tmp_path / "b"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        *("z.data", "b/1.png", "b/2.JPG")
    ]
    b = tmp_path / "b"
    assert capsys.readouterr().err == (
        "skipped, as hidden or not JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF or JPEG 2000: 3: "
        f"{b}/.4.png, {b}/.thumbs/3.png, {b}/notes.txt\n"
    )


def test_many_skipped_files_are_counted_and_the_first_named(tmp_path, capsys):
    (tmp_path / "1.avif").touch()
    for number in range(12):
        (tmp_path / f"{number:02}.HEIC").touch()
    assert expand_images([tmp_path]) == [tmp_path / "1.avif"]
    said = capsys.readouterr().err
    assert f": 12: {tmp_path}/00.HEIC, " in said
    assert said.endswith(f"{tmp_path}/09.HEIC, and 2 more\n")
    (tmp_path / "1.avif").unlink()
    with pytest.raises(UserError, match=r"no images in .*; got 12 other files, such as .*00.HEIC"):
        expand_images([tmp_path])


def test_a_task_that_the_model_was_not_trained_on_is_named(model, pictures):
    """Its answers are printed all the same: with a warning, and those without a value counted."""
    use = ("understand", pictures / "a.png", "--model", model)
    done = emosym(*use, "--task", "ranking")
    assert done.code == 0
    assert "warning: the model was not trained on the task 'ranking'" in done.err
    assert "it was trained on affect" in done.err
    assert f"answers without a value: 1: {pictures / 'a.png'}" in done.err
    assert "warning" not in emosym(*use).err


def test_a_picture_unlike_the_training_images_is_named(pictures, tmp_path):
    """The shipped model was trained on drawings of AffectWorld; `a.png` is coloured noise."""
    from data_tools.affectworld.world import draw_world

    drawn = tmp_path / "drawn.jpg"
    drawn.write_bytes(next(draw_world(8, seed=0)).jpeg)
    done = emosym("understand", pictures / "a.png", drawn, "--json")
    assert [record["unlike_training"] for record in done.json] == [True, False]
    assert "unlike the images that the model was trained on, so these are guesses: 1: " in done.err
    assert str(pictures / "a.png") in done.err
    assert str(drawn) not in done.err
