from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import typer
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from emosym.affect import PUBLIC
from emosym.cli import app, main
from emosym.cli.files import expand_images, write_file
from emosym.errors import UserError
from emosym.imprint import Imprint, read_imprint, to_png
from emosym.records import ImageRequest
from emosym.taxonomy import MIKELS8, NORMS
from model_zoo.noise import hush

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self):
        assert self.code == 0, self.err
        return json.loads(self.out)


def emosym(*arguments: object) -> Done:
    """Run the command in this process, as its entry point would."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["emosym", *map(str, arguments)]
    with (
        patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as left:
            return Done(int(left.code or 0), out.getvalue(), err.getvalue())
    raise AssertionError("a command line ends with an exit code")


def start(*arguments: object, **options) -> subprocess.Popen:
    """Start the command in a process of its own."""
    code = "from emosym.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Started in the background, a shell ignores interrupts, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


def commands(group=None, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    group = typer.main.get_command(app) if group is None else group
    found = [path]
    for name, command in getattr(group, "commands", {}).items():
        found += commands(command, (*path, name))
    return found


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A random tiny model, saved as a model folder."""
    from model_zoo import zoo
    from train.base_texts import base_texts

    folder = tmp_path_factory.mktemp("zoo") / "model"
    return zoo.save(zoo.build("emosym-tiny", base_texts(300, 0), 0), folder)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder with four different pictures, one of them in a folder of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "more").mkdir()
    draw = np.random.default_rng(5)
    for name in ("a.png", "b.jpg", "c.png", "more/d.png"):
        levels = draw.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(levels).resize((64, 64)).save(folder / name)
    return folder


@pytest.fixture(scope="session")
def drawn(model, tmp_path_factory) -> Path:
    """Three generated images, 4.png to 6.png."""
    folder = tmp_path_factory.mktemp("drawn") / "out"
    done = emosym(
        *("generate", "--emotion", "awe", "--prompt", "a tree"),
        *("--count", 3, "--seed", 4, "--steps", 2, "--out", folder, "--model", model),
    )
    assert (done.code, done.err) == (0, "")
    return folder


@pytest.fixture
def bank(model, pictures, tmp_path) -> Path:
    """A bank that holds the four pictures."""
    done = emosym("bank", "add", tmp_path / "bank", pictures, "--model", model)
    assert (done.code, done.err) == (0, "")
    return tmp_path / "bank"


def refused(done: Done, *parts: str) -> None:
    """Check that a command ended as every user error does."""
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for part in parts:
        assert part in done.err


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


# --- the command itself ---------------------------------------------------------------------------


def test_the_commands_are_those_of_the_contract():
    assert {" ".join(path) for path in commands()} == {
        *("", "understand", "generate", "doctor", "bank", "data", "zoo"),
        *("bank add", "bank search", "bank stats", "zoo list", "zoo show"),
        *("data import", "data world", "data validate", "data stats"),
    }


@pytest.mark.parametrize("path", commands(), ids=" ".join)
def test_every_command_has_help_for_all_it_takes(path):
    done = emosym(*path, "--help")
    assert (done.code, done.err) == (0, "")
    command = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    assert command.help
    shown = " ".join(done.out.replace("│", " ").split())
    for parameter in command.params:
        assert parameter.opts[-1] in shown or parameter.name in shown
        assert getattr(parameter, "help", None), parameter.name
    for name in getattr(command, "commands", {}):
        assert name in shown


def test_help_loads_no_library_of_the_model():
    code = (
        "import sys\nfrom emosym.cli import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert not left.code\n"
        "print('heavy', sorted({'torch', 'transformers', 'diffusers', 'faiss', 'numpy', 'PIL'}"
        " & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.endswith("heavy []\n")
    assert "understand" in done.stdout


def test_the_entry_point_is_this_command():
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert setup["options.entry_points"]["console_scripts"].strip() == "emosym = emosym.cli:main"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["understnd"], "No such command"),
        (["understand"], "Missing argument"),
        (["generate", "--prompt", "x"], "Missing option"),
        (["generate", "--out", "x.png", "--count", "0"], "--count"),
        (["generate", "--out", "x.png", "--valence", "high"], "--valence"),
        (["data", "import", "flickr", "a", "b"], "emoset"),
        (["bank", "search", "b", "q", "--source", "drawn"], "synthetic"),
    ],
)
def test_wrong_usage_is_told_without_a_traceback(arguments, told):
    done = emosym(*arguments)
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert "Traceback" not in done.err


def test_ctrl_c_leaves_quietly_and_leaves_nothing_behind(tmp_path):
    running = start("data", "world", tmp_path / "world", "--count", 1_000_000)
    end = time.monotonic() + 60
    while not any(tmp_path.glob(".world.*/image/*/*")) and time.monotonic() < end:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "")
    assert list(tmp_path.iterdir()) == []


def test_the_make_targets_speak_this_command(tmp_path, model, pictures, bank):
    def planned(*arguments: str) -> list[str]:
        plan = subprocess.run(
            ["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        (line,) = [line for line in plan.stdout.splitlines() if line.startswith("emosym ")]
        return shlex.split(line)[1:]

    world = tmp_path / "a world"
    assert emosym(*planned("world", f"DATA={world}", "COUNT=8", "SEED=3")).code == 0
    assert (world / "info.json").is_file()
    add = planned("bank-add", f"BANK={bank}", f"IMAGES={pictures}/a.png {pictures}/more")
    search = planned("bank-search", f"BANK={bank}", "QUERY=a lake at night")
    for line in (add, search):
        assert line[-2:] == ["--model", "emosym-tiny"]
        assert emosym(*line[:-1], model).code == 0
    assert planned("doctor") == ["doctor"]


# --- understand -----------------------------------------------------------------------------------


def test_understand_prints_the_json_of_the_contract(model, pictures):
    from emosym.pipeline import EmoSymPipeline

    given = [pictures / "c.png", pictures / "b.jpg"]
    done = emosym("understand", *given, "--model", model, "--json")
    assert done.err == ""
    assert [record["image"] for record in done.json] == [str(path) for path in given]
    expected = EmoSymPipeline.from_pretrained(model).understand(given)
    for record, seen in zip(done.json, expected, strict=True):
        assert list(record) == [
            *("image", "emotion", "probabilities", "valence", "arousal", "answer")
        ]
        assert tuple(record["probabilities"]) == MIKELS8
        assert sum(record["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        best = max(record["probabilities"], key=record["probabilities"].get)
        assert record["emotion"] == best == seen.emotion
        assert (record["valence"], record["arousal"]) == (seen.valence, seen.arousal)
        assert record["answer"] == seen.answer
        assert all(PUBLIC.low <= record[key] <= PUBLIC.high for key in ("valence", "arousal"))


def test_understand_shows_people_a_row_for_each_image_of_a_folder(model, pictures):
    done = emosym("understand", pictures, "--model", model)
    assert (done.code, done.err) == (0, "")
    rows = [line for line in done.out.splitlines() if str(pictures) in line]
    names = ["a.png", "b.jpg", "c.png", "more/d.png"]
    assert [row.split("│")[1].strip() for row in rows] == [str(pictures / name) for name in names]
    assert all(any(emotion in row for emotion in MIKELS8) for row in rows)


def test_a_fresh_process_says_nothing_beside_its_answer(model, pictures):
    process = start("understand", pictures / "a.png", "--model", model, "--json")
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert len(json.loads(out)) == 1


def test_only_the_named_notice_is_hushed(caplog):
    hush()
    hush()
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


def test_folders_are_expanded_in_order_without_hidden_files(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "b/notes.txt", "b/.thumbs/3.png", "b/.4.png", "z.data"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = expand_images([tmp_path / "z.data", tmp_path / "b"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == [
        *("z.data", "b/1.png", "b/2.JPG")
    ]


# --- models and devices ---------------------------------------------------------------------------


def test_a_model_that_is_not_there(pictures, tmp_path):
    image = pictures / "a.png"
    refused(
        emosym("understand", image, "--model", "emosym-tini"),
        "unknown model 'emosym-tini'",
        "did you mean 'emosym-tiny'?",
    )
    refused(emosym("understand", image, "--model", tmp_path), f"{tmp_path} is not a model folder")


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("heads.safetensors", lambda data: data[:1000], "heads.safetensors cannot be loaded"),
        ("emosym.json", lambda data: b"{", "JSONDecodeError"),
        ("emosym.json", lambda data: data.replace(b'"hidden"', b'"hiden"'), "hiden"),
        ("emosym.json", lambda data: data.replace(b'"hidden": 192', b'"hidden": 96'), "do not fit"),
        ("decoder/vae/diffusion_pytorch_model.safetensors", None, "no file named"),
    ],
    ids=["cut", "not json", "unknown key", "another shape", "missing"],
)
def test_a_damaged_model_folder_is_one_line(model, pictures, tmp_path, file, change, told):
    folder = tmp_path / "model"
    shutil.copytree(model, folder, copy_function=os.link)
    path = folder / file
    data = path.read_bytes()
    path.unlink()  # a hard link: the model of the other tests stays whole
    if change is not None:
        assert change(data) != data
        path.write_bytes(change(data))
    refused(emosym("understand", pictures / "a.png", "--model", folder), told)


def test_a_device_that_is_not_there(model, pictures):
    for device in ("gpu9", "cuda:99"):
        done = emosym("understand", pictures / "a.png", "--model", model, "--device", device)
        refused(done, f"cannot use the device '{device}'", "expected cpu, cuda or cuda:NUMBER")


# --- generate -------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_however_many_are_asked_for(model, drawn, tmp_path):
    request = ("generate", "--emotion", "awe", "--prompt", "a tree", "--steps", 2)
    for seed in (4, 6):
        out = tmp_path / f"{seed}.png"
        assert emosym(*request, "--seed", seed, "--out", out, "--model", model).code == 0
        assert out.read_bytes() == (drawn / f"{seed}.png").read_bytes()
    assert len({(drawn / f"{seed}.png").read_bytes() for seed in (4, 5, 6)}) == 3
    other = tmp_path / "other.png"
    guided = emosym(*request, "--seed", 4, "--guidance", 7, "--out", other, "--model", model)
    assert guided.code == 0
    with Image.open(other) as one, Image.open(drawn / "4.png") as two:
        assert one.tobytes() != two.tobytes()


def test_generate_prints_the_json_of_the_contract(model, tmp_path):
    out = tmp_path / "new" / "folder"
    done = emosym(
        *("generate", "--prompt", " a boat ", "--valence", "-1.5", "--arousal", "2"),
        *("--count", 2, "--seed", 7, "--steps", 1, "--out", out, "--model", model, "--json"),
    )
    assert done.err == ""
    common = {"prompt": "a boat", "emotion": None, "valence": -1.5, "arousal": 2.0}
    assert done.json == [
        {"image": str(out / f"{seed}.png"), **common, "seed": seed} for seed in (7, 8)
    ]
    assert names_in(out) == ["7.png", "8.png"]
    with Image.open(out / "7.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (64, 64))
    assert (out / "7.png").stat().st_mode & 0o777 == 0o644


def test_an_emotion_alone_brings_its_own_affect(model, tmp_path):
    out = tmp_path / "x.png"
    done = emosym(
        *("generate", "--emotion", "Sad", "--steps", 1, "--out", out, "--model", model, "--json")
    )
    norm = NORMS["sadness"].to(PUBLIC)
    assert done.json == [
        {
            "image": str(out),
            "prompt": "",
            "emotion": "sadness",
            "valence": norm.valence,
            "arousal": norm.arousal,
            "seed": 0,
        }
    ]


def test_a_generated_file_tells_how_it_was_made(model, drawn):
    from model_zoo import zoo

    norm = NORMS["awe"].to(PUBLIC)
    assert read_imprint(drawn / "5.png") == Imprint(
        request=ImageRequest(
            prompt="a tree", emotion="awe", valence=norm.valence, arousal=norm.arousal
        ),
        seed=5,
        guidance=2.0,
        steps=2,
        model=zoo.fingerprint(model),
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "nothing was asked for"),
        (["--prompt", "  "], "nothing was asked for"),
        (["--emotion", "angr"], "unknown emotion 'angr'; expected one of amusement"),
        (["--emotion", "angr"], "did you mean 'anger'?"),
        (["--valence", "1"], "valence and arousal go together; give both, or neither"),
        (["--emotion", "awe", "--arousal", "1"], "valence and arousal go together"),
        (["--valence", "3.5", "--arousal", "0"], "valence is outside its scale; got 3.5"),
        (["--valence", "0", "--arousal", "nan"], "arousal is outside its scale; got nan"),
        (["--prompt", "x", "--guidance", "nan"], "the guidance scale; got nan"),
        (["--prompt", "x", "--guidance", "inf"], "the guidance scale; got inf"),
        (["--prompt", "x", "--guidance", "-1"], "the guidance scale; got -1"),
        (["--prompt", "x", "--steps", "0"], "the number of sampling steps; got 0"),
    ],
)
def test_a_bad_request_is_told_before_a_model_is_loaded(options, told, tmp_path):
    out = tmp_path / "x.png"
    done = emosym("generate", *options, "--out", out, "--model", "no-such-model")
    refused(done, told)
    assert list(tmp_path.iterdir()) == []


def test_a_prompt_that_does_not_fit_leaves_nothing(model, tmp_path):
    out = tmp_path / "out"
    done = emosym("generate", "--prompt", "lake " * 60, "--out", out, "--model", model)
    refused(done, "is too long for the decoder's text encoder", "shorten the prompt")
    assert list(tmp_path.iterdir()) == []


def test_where_images_go(model, tmp_path):
    request = ("generate", "--prompt", "x", "--steps", 1, "--model", model)
    refused(
        emosym(*request, "--count", 2, "--out", tmp_path / "x.png"),
        "2 images do not fit into one file",
        "expected a folder",
    )
    refused(
        emosym(*request, "--out", tmp_path / "x.jpg"),
        "images are written as PNG",
        f"expected {tmp_path / 'x.png'}",
    )
    (tmp_path / "file").write_text("mine")
    refused(emosym(*request, "--out", tmp_path / "file" / "x.png"), "cannot write", "file/x.png")
    assert names_in(tmp_path) == ["file"]
    (tmp_path / "dir.png").mkdir()
    assert emosym(*request, "--out", tmp_path / "dir.png").code == 0
    assert names_in(tmp_path / "dir.png") == ["0.png"]


def test_a_file_is_replaced_only_when_asked_to(model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "1.png").write_bytes(b"precious")
    request = ("generate", "--prompt", "x", "--steps", 1, "--count", 2, "--out", out)
    refused(
        emosym(*request, "--model", model),
        f"{out / '1.png'} exists",
        "got 1 of 2 files",
        "--overwrite",
    )
    assert names_in(out) == ["1.png"]
    assert (out / "1.png").read_bytes() == b"precious"
    assert emosym(*request, "--model", model, "--overwrite").code == 0
    assert names_in(out) == ["0.png", "1.png"]
    assert (out / "1.png").read_bytes().startswith(b"\x89PNG")


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(UserError) as told:
            write_file(path, bytes(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"cannot write {path}; got {os.strerror(errno.EFBIG)}" in str(told.value)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["x.png"]


# --- imprint --------------------------------------------------------------------------------------


def test_an_imprint_comes_back_in_any_script(tmp_path):
    imprint = Imprint(
        request=ImageRequest(prompt='ein "See" 夜\n', valence=-1.25, arousal=0.5),
        seed=2**62,
        guidance=1.5,
        steps=9,
        model="m",
    )
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    data = to_png(image, imprint)
    assert data == to_png(image, imprint)
    (tmp_path / "x.png").write_bytes(data)
    assert read_imprint(tmp_path / "x.png") == imprint
    for name in ("plain.png", "plain.jpg"):
        image.save(tmp_path / name)
        assert read_imprint(tmp_path / name) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", "3", '{"prompt": 1}', "[" * 5000])
def test_a_broken_imprint_is_told(tmp_path, text):
    about = PngInfo()
    about.add_text("emosym", text)
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png", pnginfo=about)
    with pytest.raises(UserError, match="says in a broken way how it was made"):
        read_imprint(tmp_path / "x.png")


def test_an_imprint_with_a_field_of_another_type_is_told(tmp_path):
    right = {"prompt": "p", "emotion": None, "valence": None, "arousal": None}
    right |= {"seed": 1, "guidance": 2.0, "steps": 3, "model": "m"}
    wrong = [{"prompt": None}, {"emotion": 3}, {"valence": "high"}, {"seed": "1"}, {"model": 0}]
    for change in ({}, *wrong, {"extra": 1}):
        about = PngInfo()
        about.add_text("emosym", json.dumps(right | change))
        Image.new("RGB", (4, 4)).save(tmp_path / "x.png", pnginfo=about)
        if change:
            with pytest.raises(UserError, match="says in a broken way"):
                read_imprint(tmp_path / "x.png")
        else:
            assert read_imprint(tmp_path / "x.png").seed == 1


# --- bank -----------------------------------------------------------------------------------------


def test_bank_add_makes_the_bank_and_says_what_the_model_sees(model, pictures, tmp_path):
    from model_zoo import zoo

    bank = tmp_path / "banks" / "one"
    done = emosym(
        *("bank", "add", bank, pictures / "a.png", pictures / "more", "--model", model),
        *("--emotion", "Content", "--valence", "1", "--arousal", "-1", "--json"),
    )
    assert done.err == ""
    record = done.json
    seen = emosym("understand", pictures / "a.png", pictures / "more", "--model", model, "--json")
    assert [one["image"] for one in record["images"]] == [one["image"] for one in seen.json]
    for one, view in zip(record.pop("images"), seen.json, strict=True):
        assert one["confidence"] == pytest.approx(view["probabilities"]["contentment"], abs=1e-6)
        assert {key: one[key] for key in ("admitted", "reason", "emotion", "predicted")} == {
            "admitted": True,
            "reason": "added by hand",
            "emotion": "contentment",
            "predicted": view["emotion"],
        }
    assert record == {"bank": str(bank), "version": 1, "size": 2, "admitted": 2, "refused": 0}
    stats = emosym("bank", "stats", bank, "--json").json
    assert stats["by_emotion"] == {name: 2 * (name == "contentment") for name in MIKELS8}
    assert (stats["bank"], stats["real"], stats["synthetic"]) == (str(bank), 2, 0)
    assert (stats["dim"], stats["model_hash"]) == (160, zoo.fingerprint(model))


def test_an_image_finds_itself(bank, model, pictures):
    for name in ("a.png", "b.jpg", "c.png", "more/d.png"):
        done = emosym("bank", "search", bank, pictures / name, "--model", model, "-k", 2, "--json")
        assert done.err == ""
        first, second = done.json
        assert first["cosine"] == pytest.approx(1, abs=1e-5)
        assert first["cosine"] > second["cosine"]
        digest = hashlib.sha256((pictures / name).read_bytes()).hexdigest()
        assert first["sha256"] == digest
        assert Path(first["image"]).read_bytes() == (pictures / name).read_bytes()


def test_text_and_affect_find_by_what_they_ask_for(bank, model):
    from emosym.pipeline import EmoSymPipeline
    from memory_bank import MemoryBank

    asked = {
        "a quiet lake": ImageRequest(prompt="a quiet lake"),
        "valence=1.0 arousal=-2": ImageRequest(valence=1.0, arousal=-2.0),
        "emotion=fear": ImageRequest(emotion="fear"),
        "e=mc2 is true": ImageRequest(prompt="e=mc2 is true"),
    }
    pipeline = EmoSymPipeline.from_pretrained(model)
    vectors = pipeline.embed_requests(list(asked.values()))
    assert (vectors.shape, vectors.dtype) == ((4, 160), np.float32)
    assert len(np.unique(vectors.round(4), axis=0)) == 4
    with MemoryBank.open(bank) as store:
        expected = store.search(vectors, 4)
    for query, hits in zip(asked, expected, strict=True):
        found = emosym("bank", "search", bank, query, "--model", model, "--json").json
        assert [one["id"] for one in found] == [hit.entry.id for hit in hits]
        assert [one["cosine"] for one in found] == pytest.approx(
            [hit.cosine for hit in hits], abs=1e-5
        )


def test_what_generate_made_brings_its_request_into_the_bank(bank, model, drawn):
    from model_zoo import zoo

    added = emosym("bank", "add", bank, drawn, "--model", model, "--json").json
    assert [one["emotion"] for one in added["images"]] == ["awe"] * 3
    search = ("bank", "search", bank, "emotion=awe", "--model", model, "--json")
    found = emosym(*search, "--source", "synthetic").json
    assert {one["seed"] for one in found} == {4, 5, 6}
    norm = NORMS["awe"].to(PUBLIC)
    for one in found:
        assert (one["prompt"], one["source"], one["emotion"]) == ("a tree", "synthetic", "awe")
        assert (one["valence"], one["arousal"]) == (norm.valence, norm.arousal)
        assert one["model_hash"] == zoo.fingerprint(model)
    assert len(emosym(*search, "--emotion", "awe").json) == 3
    assert len(emosym(*search, "--source", "real").json) == 4
    assert len(emosym(*search).json) == 7


def test_options_say_more_than_the_file(bank, model, drawn):
    add = ("bank", "add", bank, drawn / "4.png", "--emotion", "fear", "--source", "real")
    assert emosym(*add, "--model", model).code == 0
    (found,) = emosym(
        *("bank", "search", bank, "x", "--emotion", "fear", "--model", model, "--json")
    ).json
    assert (found["source"], found["seed"], found["prompt"]) == ("real", 4, "a tree")


def test_an_image_that_the_bank_holds_is_refused_not_an_error(bank, model, pictures):
    images = (pictures / "a.png", pictures / "a.png")
    done = emosym("bank", "add", bank, *images, "--model", model, "--json")
    assert [(one["admitted"], one["reason"]) for one in done.json["images"]] == [
        (False, "duplicate image")
    ] * 2
    assert (done.json["size"], done.json["version"], done.json["refused"]) == (4, 2, 2)
    shown = emosym("bank", "add", bank, images[0], "--model", model)
    assert "duplicate image" in shown.out
    assert f"{bank}: version 3, 4 images" in shown.out


def test_gated_images_meet_the_gates(bank, model, drawn):
    seen = emosym("understand", drawn / "4.png", "--model", model, "--json").json[0]["emotion"]
    other = next(name for name in MIKELS8 if name != seen)
    add = ("bank", "add", bank, drawn / "4.png", "--gated", "--model", model, "--json")
    (one,) = emosym(*add, "--emotion", other).json["images"]
    assert not one["admitted"]
    assert f"asked for {other}, judged {seen}" in one["reason"]
    stats = emosym("bank", "stats", bank, "--json").json
    assert (stats["size"], stats["refused"]) == (4, 1)


def test_a_broken_image_adds_nothing_and_makes_no_bank(model, pictures, tmp_path):
    cut, bank = tmp_path / "cut.png", tmp_path / "bank"
    cut.write_bytes((pictures / "a.png").read_bytes()[:200])
    done = emosym("bank", "add", bank, pictures / "b.jpg", cut, "--model", model)
    refused(done, f"unreadable image {cut}")
    assert names_in(tmp_path) == ["cut.png"]
    Image.new("RGB", (8, 8)).save(tmp_path / "x.webp")
    refused(
        emosym("bank", "add", bank, tmp_path / "x.webp", "--model", model),
        "unsupported image",
        "expected PNG or JPEG",
    )
    assert not bank.exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--emotion", "joyful"], "unknown emotion 'joyful'"),
        (["--valence", "1"], "valence and arousal belong together"),
        (["--valence", "9", "--arousal", "0"], "valence is outside its scale; got 9"),
    ],
)
def test_bad_labels_are_told_before_a_model_is_loaded(pictures, tmp_path, options, told):
    add = ("bank", "add", tmp_path / "bank", pictures, "--model", "no-such-model")
    refused(emosym(*add, *options), told)
    assert list(tmp_path.iterdir()) == []


def test_a_bank_belongs_to_its_model(bank, model, pictures, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    from safetensors.torch import load_file, save_file

    heads = load_file(other / "heads.safetensors")
    name = next(iter(heads))
    save_file({**heads, name: heads[name] + 1}, other / "heads.safetensors")
    for words in (["add", bank, pictures / "a.png"], ["search", bank, "x"]):
        refused(emosym("bank", *words, "--model", other), "were made by another model")
    assert emosym("bank", "stats", bank, "--json").json["version"] == 1


def test_what_is_no_bank_is_told(model, pictures, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("full", "file"):
        add = ("bank", "add", tmp_path / name, pictures, "--model", model)
        refused(emosym(*add), f"not a memory bank: {tmp_path / name}")
    gone = tmp_path / "gone"
    refused(emosym("bank", "search", gone, "x", "--model", model), "not a memory bank")
    refused(emosym("bank", "stats", gone), "not a memory bank")
    assert names_in(tmp_path) == ["file", "full", "x"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("gone.png", "no such image: gone.png"),
        ("", "nothing was asked for"),
        ("valence=1", "valence and arousal go together"),
        ("valence=1 arousal=x", "arousal is not a number; got 'x'"),
        ("valence=1, arousal=4", "arousal is outside its scale; got 4.0"),
        ("valance=1 arousal=2", "unknown part of a query 'valance'"),
        ("emotion=angr", "did you mean 'anger'?"),
    ],
)
def test_a_bad_query_is_told(bank, model, query, told):
    refused(emosym("bank", "search", bank, query, "--model", model), told)


# --- data -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "world"
    done = emosym("data", "world", out, "--count", 24, "--seed", 5, "--size", 32, "--json")
    assert done.json == {"dataset": str(out), "count": 24, "seed": 5, "size": 32}
    assert done.err == ""
    return out


def test_the_same_seed_draws_the_same_world(world, tmp_path):
    again = tmp_path / "again"
    done = emosym("data", "world", again, "--count", 24, "--seed", 5, "--size", 32)
    assert done.out == f"24 images in {again}\n"
    assert names_in(again) == names_in(world)
    for path in sorted(world.rglob("*.jpg")):
        assert (again / path.relative_to(world)).read_bytes() == path.read_bytes()


def test_a_world_is_imported_validated_and_counted(world, tmp_path):
    out = tmp_path / "out"
    report = emosym("data", "import", "emoset", world, out, "--json").json
    assert list(report) == ["manifest", "imported", "quarantined", "by_split", "by_emotion"]
    assert (report["imported"], report["quarantined"]) == (24, 0)
    assert report["by_emotion"] == dict.fromkeys(MIKELS8, 3)
    manifest = Path(report["manifest"])
    assert manifest == out / "manifest.jsonl"
    for path in (manifest, out):
        done = emosym("data", "validate", path, "--json")
        assert done.json == {"manifest": str(manifest), "valid": True, "problems": []}
    assert emosym("data", "validate", out).out == f"{manifest} is valid\n"
    stats = emosym("data", "stats", out, "--json").json
    assert stats == emosym("data", "stats", world, "--json").json
    assert stats["samples"] == 24
    assert stats["splits"] == report["by_split"]
    assert {
        sum(split.get(name, 0) for split in stats["emotions"].values()) for name in MIKELS8
    } == {3}
    shown = emosym("data", "stats", world).out
    assert f"{stats['valence']['mean']:.4g}" in shown


def test_a_quarantined_row_is_counted_and_where_to_read_of_it_is_told(world, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(world, source)
    victim = sorted(source.rglob("*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    done = emosym("data", "import", "emoset", source, out)
    assert (done.code, done.err) == (0, "")
    assert f"why rows were set aside: {out / 'quarantine.jsonl'}" in done.out
    (row,) = map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())
    assert row["record"] == victim.stem


def test_problems_of_a_manifest_are_listed_and_the_exit_code_says_so(pictures, tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    shutil.copy(pictures / "a.png", tmp_path)
    good = {"id": "1", "image": "a.png", "split": "train", "emotion": "awe"}
    bad = [{"emotion": "aw"}, {"image": "../a.png"}, {"valence": 4}]
    rows = [good, *({**good, "id": str(n), **row} for n, row in enumerate(bad, start=2))]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = emosym("data", "validate", manifest)
    assert done.code == 2
    assert done.err == f"error: {manifest} has 3 problems; correct the lines listed\n"
    lines = done.out.splitlines()
    starts = [f"{manifest}:2: emotion: ", f"{manifest}:3: image: ", f"{manifest}:4: valence: "]
    assert len(lines) == 3
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True))
    done = emosym("data", "validate", manifest, "--json")
    record = json.loads(done.out)
    assert (done.code, record["valid"]) == (2, False)
    assert [
        f"{one['file']}:{one['line']}: {one['field']}: {one['why']}" for one in record["problems"]
    ] == lines


def test_bad_data_is_told(world, pictures, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    gone = tmp_path / "gone"
    refused(emosym("data", "stats", gone), f"no dataset at {gone}")
    refused(emosym("data", "stats", pictures), "has no layout that is known")
    refused(emosym("data", "stats", empty), "the manifest is empty")
    refused(emosym("data", "validate", gone), f"cannot read manifest {gone}")
    refused(emosym("data", "import", "oasis", gone, tmp_path / "o"), f"no folder {gone}")
    refused(emosym("data", "import", "oasis", world, tmp_path / "o"), "OASIS")
    refused(emosym("data", "import", "emoset", world, pictures), "already exists")
    refused(emosym("data", "world", pictures, "--count", 8), "already exists")
    refused(emosym("data", "world", tmp_path / "w", "--count", 0), "expected count of at least 1")
    refused(emosym("data", "world", tmp_path / "w", "--size", 8), "expected 16 or more")
    assert names_in(tmp_path) == ["empty.jsonl"]


# --- zoo and doctor -------------------------------------------------------------------------------


def test_the_zoo_is_listed_and_shown():
    from model_zoo import zoo

    listed = emosym("zoo", "list", "--json").json
    assert [record["name"] for record in listed] == zoo.members()
    for record in listed:
        assert list(record) == ["name", "description", "weights"]
        shown = emosym("zoo", "show", record["name"], "--json").json
        assert list(shown) == ["name", "preset", "weights", "files", "card"]
        assert shown["preset"] == zoo.preset(record["name"])
        assert shown["weights"] == record["weights"]
        assert bool(shown["files"]) == (shown["weights"] is not None)
        assert record["description"] in emosym("zoo", "list").out
        assert record["description"] in emosym("zoo", "show", record["name"]).out
    refused(emosym("zoo", "show", "emosym-tini"), "did you mean 'emosym-tiny'?")


def test_a_member_with_weights_shows_its_card_and_hashes(model, tmp_path, monkeypatch):
    from model_zoo import zoo

    folder = tmp_path / "weights" / "emosym-tiny"
    shutil.copytree(model, folder)
    (folder / "README.md").write_text("# The card\n\nMade by hand.\n")
    shutil.copytree(zoo.HERE / "presets", tmp_path / "presets")
    monkeypatch.setattr(zoo, "HERE", tmp_path)
    assert [one["weights"] for one in emosym("zoo", "list", "--json").json] == [str(folder)]
    shown = emosym("zoo", "show", "emosym-tiny", "--json").json
    assert shown["files"] == zoo.weight_files(model)
    assert shown["card"] == "# The card\n\nMade by hand.\n"
    text = emosym("zoo", "show", "emosym-tiny").out
    assert "Made by hand." in text
    assert all(digest in text for digest in shown["files"].values())


def test_doctor_tells_every_check_and_its_exit_code_is_their_verdict():
    done = emosym("doctor", "--json")
    checks = json.loads(done.out)
    assert all(list(check) == ["name", "status", "found", "fix"] for check in checks)
    assert {"python", "accelerator", "memory", "disk"} <= {check["name"] for check in checks}
    assert done.code == (2 if any(check["status"] == "fail" for check in checks) else 0)
    shown = emosym("doctor")
    assert shown.code == done.code
    assert all(check["name"] in shown.out for check in checks)
