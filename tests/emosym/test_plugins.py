from __future__ import annotations

import json
import sys

import pytest
from PIL import Image

from data_tools.sources.registry import SOURCES
from emosym.errors import UserError
from emosym.plugins import Registry, load_plugin
from emosym.records import ImageRequest, Question
from emosym.rl.scorers import JudgeSpec
from emosym.tasks.base import Answer
from emosym.tasks.registry import REWARDS, TASKS, score
from memory_bank import GATES
from model_zoo.judges.registry import JUDGES, build_judge
from tests.emosym.cli.command import emosym, refused


@pytest.fixture(autouse=True)
def _forget_plugins():
    """Restore the registries and the loaded modules: other tests see no plugin."""
    registries = [SOURCES, GATES, JUDGES, TASKS, REWARDS]
    before = [dict(registry) for registry in registries]
    modules = set(sys.modules)
    yield
    for registry, members in zip(registries, before, strict=True):
        registry.clear()
        registry.update(members)
    for name in set(sys.modules) - modules:
        if name.startswith("emosym_plugin_"):
            del sys.modules[name]


def write(folder, text: str, name: str = "mine.py"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_registry_replaces_no_member():
    registry = Registry("reward", {"format": 1}, lambda name, member: None)
    registry.register("brevity", 2)
    assert registry == {"format": 1, "brevity": 2}
    assert registry.look_up("brevity") == 2
    with pytest.raises(UserError, match="the reward 'format' exists already; register it under"):
        registry.register("format", 3)
    with pytest.raises(UserError, match="a reward needs a name; got ''"):
        registry.register("", 3)
    assert registry["format"] == 1
    with pytest.raises(UserError, match=r"unknown reward 'brevty'.*did you mean 'brevity'"):
        registry.look_up("brevty")


def test_a_file_is_run_once(tmp_path):
    path = write(tmp_path, "import pathlib\nwith open(__file__ + '.log', 'a') as f: f.write('x')\n")
    (tmp_path / "link.py").symlink_to(path)
    module = load_plugin(path)
    assert load_plugin(str(path)) is module
    assert load_plugin(tmp_path / "link.py") is module
    assert (tmp_path / "mine.py.log").read_text() == "x"


def test_files_of_the_same_name_are_different_plugins(tmp_path):
    (tmp_path / "a").mkdir()
    first = load_plugin(write(tmp_path, "value = 1\n"))
    second = load_plugin(write(tmp_path / "a", "value = 2\n"))
    assert (first.value, second.value) == (1, 2)


def test_a_plugin_may_declare_dataclasses(tmp_path):
    text = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "from typing import ClassVar\n@dataclass\nclass A:\n"
        "    x: ClassVar[int] = 1\n    y: int = 2\n"
    )
    assert load_plugin(write(tmp_path, text)).A().y == 2


@pytest.mark.parametrize("name", ["no.py", "folder.py", "mine.txt"])
def test_a_plugin_is_an_existing_python_file(tmp_path, name):
    (tmp_path / "folder.py").mkdir()
    write(tmp_path, "", "mine.txt")
    with pytest.raises(UserError, match=f"no such plugin: .*{name}; expected an existing Python"):
        load_plugin(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("x = 1\nx = = 2\n", 2, "SyntaxError: invalid syntax"),
        ("x = 1\n\ny = z\n", 3, "NameError: name 'z' is not defined"),
        ("import json\ndef f():\n    json.loads('{')\nf()\n", 3, "JSONDecodeError: "),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("raise ValueError('a\\x1b[2Jb')\n", 1, r"ValueError: a\x1b[2Jb; correct the file"),
        ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n", 3, "E; correct the file"),
        ("raise GeneratorExit\n", 1, "GeneratorExit; correct the file"),
        ("import sys\ndel sys.modules[__name__]\n1 / 0\n", 3, "ZeroDivisionError: "),
        (
            "from memory_bank import GATES\nGATES.register('label', None)\n",
            2,
            "UserError: the gate 'label' exists already",
        ),
    ],
)
def test_an_exception_in_a_plugin_is_reported_with_its_line(tmp_path, text, line, got):
    path = write(tmp_path, text)
    for _ in range(2):  # a file that failed is not taken for a loaded one
        with pytest.raises(UserError) as caught:
            load_plugin(path)
        assert str(caught.value).startswith(
            f"{path}:{line}: the plugin cannot be loaded; got {got}"
        )


TASK = "register_task(Task(name='mine', title='t', measure=lambda a: {}, metrics={}"


@pytest.mark.parametrize(
    ("registration", "why"),
    [
        (
            "REWARDS.register('mine', lambda answer, question: 1.0)",
            "an object of type function",
        ),
        ("REWARDS.register('mine', Reward)", "got the class Reward; expected Reward"),
        ("REWARDS.register('mine', Reward(3))", "score of the reward 'mine' is not a function"),
        ("REWARDS.register('mine', Reward(lambda a: 1.0))", "takes other arguments; got (a)"),
        ("REWARDS.register('mine', Reward(max, keys='label'))", "expected a tuple of names"),
        ("REWARDS.register('total', Reward(max))", "a reward cannot be named 'total'"),
        ("REWARDS.register(3, Reward(max))", "a reward needs a name; got 3"),
        ("REWARDS.register('a\\x1b[31m', Reward(max))", r"a reward needs a name; got 'a\x1b[31m'"),
        ("TASKS.register('mine', 3)", "the task 'mine' has the wrong type"),
        ("register_task(3)", "this is not a task; got int"),
        ("TASKS.register('other', AFFECT)", "the task 'other' has another name; got 'affect'"),
        (f"{TASK}, build=3))", "build of the task 'mine' is not a function"),
        (f"{TASK}, readers={{'q': 3}}))", "the reader 'q' of the task 'mine' has the wrong type"),
        (f"{TASK}, rewards={{'q': 3}}))", "the reward 'q' has the wrong type"),
        (f"{TASK[:-2]}{{'m': 'x'}}))", "the metric 'm' of the task 'mine'; got 'x'"),
        ("GATES.register('mine', None)", "the gate 'mine' is not a function; got None"),
        ("GATES.register('mine', lambda image: None)", "takes other arguments; got (image)"),
        ("SOURCES.register('mine', max)", "the dataset 'mine' has the wrong type"),
        ("SOURCES.register('mine', Source(None, max, ''))", "matches of the dataset 'mine'"),
        ("JUDGES.register('mine', 3)", "the judge 'mine' is not a function; got int"),
        ("JUDGES.register('mine', lambda images: 1)", "nothing gives it; got images"),
    ],
)
def test_what_cannot_be_a_member_is_refused_where_it_is_registered(tmp_path, registration, why):
    imports = (
        "from data_tools.sources.registry import SOURCES, Source\n"
        "from emosym.tasks.affect import AFFECT\n"
        "from emosym.tasks.base import Reward, Task\n"
        "from emosym.tasks.registry import REWARDS, TASKS, register_task\n"
        "from memory_bank import GATES\n"
        "from model_zoo.judges.registry import JUDGES\n"
    )
    path = write(tmp_path, f"{imports}{registration}\n")
    with pytest.raises(UserError) as caught:
        load_plugin(path)
    assert str(caught.value).startswith(f"{path}:7: the plugin cannot be loaded; got UserError: ")
    assert why in str(caught.value)


def test_a_plugin_that_fails_leaves_no_member_and_prints_nothing_on_stdout(tmp_path, capsys):
    text = "from memory_bank import GATES\nprint('hello')\nGATES.register('mine', max)\n"
    path = write(tmp_path, f"{text}1 / 0\n")
    with pytest.raises(UserError, match="ZeroDivisionError"):
        load_plugin(path)
    assert "mine" not in GATES
    load_plugin(write(tmp_path, text))
    assert GATES["mine"] is max
    assert capsys.readouterr() == ("", "hello\nhello\n")


def test_a_reward_that_gives_no_number(tmp_path):
    load_plugin(write(tmp_path, REWARD))
    question = Question(id="q", task="affect", images=(), split="train", text="?", truth={})
    with pytest.raises(UserError, match="reward 'nothing' is not finite for q; got None"):
        score(Answer(True), question, {"nothing": 1.0})


REWARD = """
from emosym.tasks.base import Reward
from emosym.tasks.registry import REWARDS

REWARDS.register("nothing", Reward(lambda answer, question: None))
"""

SOURCE = """
from data_tools.sources.registry import SOURCES, Source
from emosym.records import Sample

def read(root):
    for path in sorted(root.glob("*.png")):
        yield Sample(id=path.stem, image=path, split="train", emotion="awe")

SOURCES.register("flat", Source(lambda root: (root / "flat.txt").exists(), read, "flat folder"))
"""


def test_a_dataset_of_a_plugin_is_imported_and_opened(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "flat.txt").touch()
    for level, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (16, 16), (level * 90, 0, 0)).save(source / name)
    plugin = write(tmp_path, SOURCE)
    refused(
        emosym("data", "import", "flat", source, tmp_path / "out"),
        "unknown dataset 'flat'; expected one of emoset, oasis",
    )
    done = emosym("data", "import", "flat", source, tmp_path / "out", "--plugin", plugin, "--json")
    assert done.json["imported"] == 2
    stats = emosym("data", "stats", source, "--plugin", plugin, "--plugin", plugin, "--json")
    assert stats.json["splits"] == {"train": 2}


def test_a_broken_plugin_ends_the_command(tmp_path):
    plugin = write(tmp_path, "1 / 0\n")
    refused(
        emosym("data", "stats", tmp_path, "--plugin", plugin),
        f"{plugin}:1: the plugin cannot be loaded; got ZeroDivisionError: division by zero",
    )
    refused(emosym("data", "stats", tmp_path, "--plugin", "no.py"), "no such plugin: no.py")


def test_a_path_with_control_characters_is_escaped(tmp_path):
    done = emosym("data", "stats", tmp_path, "--plugin", "a\x1b[2J\u202e.py")
    refused(done, r"no such plugin: a\x1b[2J\u202e.py")


GATE = """
from memory_bank import GATES

GATES.register("never", lambda candidate, context: f"refused by a plugin: {candidate.emotion}")
"""


def test_a_gate_of_a_plugin_judges_images(tmp_path):
    from memory_bank import AdmissionPolicy

    picture = tmp_path / "a.png"
    Image.effect_noise((64, 64), 80).convert("RGB").save(picture)
    plugin = write(tmp_path, GATE)
    done = emosym(
        *("bank", "add", tmp_path / "bank", picture, "--emotion", "awe", "--gated"),
        *("--plugin", plugin, "--json"),
    )
    (image,) = done.json["images"]
    assert not image["admitted"]
    assert "refused by a plugin: awe" in image["reason"]
    assert AdmissionPolicy().gates[-1] == "never"


JUDGE = """
import numpy as np
from model_zoo.judges.registry import JUDGES

def brightness(*, shape="linear"):
    return lambda images, requests: np.array([np.asarray(image).mean() / 255 for image in images])

JUDGES.register("brightness", brightness)
"""


def test_a_judge_of_a_plugin_scores_images(tmp_path):
    load_plugin(write(tmp_path, JUDGE))
    images = [Image.new("RGB", (8, 8), (level,) * 3) for level in (0, 255)]
    request = ImageRequest(
        prompt="a tree",
        emotion=None,
    )
    assert build_judge("brightness", JudgeSpec())(images, [request] * 2).tolist() == [0.0, 1.0]
    with pytest.raises(UserError, match="judge 'brightness' has no key 'weights'"):
        build_judge("brightness", JudgeSpec(weights="w"))


def test_a_preset_cannot_name_a_plugin(tmp_path):
    from emosym.config import load_config
    from train.phases.registry import train_config

    plugin = write(tmp_path, "raise AssertionError('a preset ran code')\n")
    for key in ("plugin", "plugins"):
        preset = tmp_path / "preset.yaml"
        preset.write_text(json.dumps({key: [str(plugin)]}), encoding="utf-8")
        with pytest.raises(UserError, match=f"{key}: unknown key"):
            load_config(train_config(), preset)
        with pytest.raises(UserError, match=f"{key}: unknown key"):
            load_config(train_config(), None, [f"{key}=[{plugin}]"])
