"""The house itself: make targets, declared and pinned dependencies, shipped presets."""

from __future__ import annotations

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from emosym.config import dump_config, load_config

ROOT = Path(__file__).resolve().parents[1]
OURS = {"emosym", "model_zoo", "memory_bank", "data_tools", "eval", "train", "benchmarks"}
PRESETS = sorted((ROOT / "train" / "presets").rglob("*.yaml"))


def make(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    clean = {name: os.environ[name] for name in ("HOME", "PATH") if name in os.environ}
    if path is not None:
        clean["PATH"] = path
    return subprocess.run(
        [shutil.which("make"), *arguments], cwd=ROOT, env=clean, capture_output=True, text=True
    )


def declared(*extras: str) -> dict[str, Requirement]:
    """Return the requirements of setup.cfg by canonical name."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    lines = parser["options"]["install_requires"].splitlines()
    for extra in extras:
        lines += parser["options.extras_require"][extra].splitlines()
    parsed = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in parsed}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    loose = [
        line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)
    ]
    assert loose == []
    return {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}


def third_party(path: Path) -> set[str]:
    """Return the top-level names of the packages that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names - OURS - {"tests"} - set(sys.stdlib_module_names)


# --- make ---------------------------------------------------------------------------------------


def test_every_target_is_documented():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = {name for line in re.findall(r"^\.PHONY: (.*)$", text, re.M) for name in line.split()}
    documented = set(re.findall(r"^([a-z][a-z-]*):.*## \S", text, re.M))
    assert phony - {"FORCE", "given-hostfile", "no-overrides"} == documented
    shown = make().stdout
    for name in documented:
        assert re.search(rf"^  {name} +\S", shown, re.M)
    for name in ("PYTHON", "TORCH", "NPROC", "DATA", "RUN", "CONFIG", "OVERRIDES", "HOSTFILE"):
        assert re.search(rf"^  {name} +\S", shown, re.M)


def test_targets_named_like_folders_still_run():
    for name in ("eval", "test", "train-joint"):
        plan = make("-n", name, "DATA=d", "RUN=r", "VENV=/no/venv")
        assert plan.returncode == 0, plan.stderr
        assert "/no/venv/bin/python -m " in plan.stdout


def test_demo_sets_itself_up_and_is_one_command():
    plan = make("-n", "demo", "VENV=/no/venv").stdout
    commands = plan.splitlines()
    assert '"python3" -m venv "/no/venv"' in commands
    demo = '/no/venv/bin/python -m train run train/presets/demo.yaml --run "runs/demo"'
    assert commands[-1].strip() == demo


def test_one_rank_starts_directly_and_more_go_through_the_launcher(tmp_path):
    one = make("-n", "train-joint", "DATA=my data", "RUN=r", "OVERRIDES=a=1 b=2").stdout
    assert (
        '-m train run "train/presets/tiny/joint-tiny.yaml" --data "my data" --run "r" a=1 b=2'
        in one.splitlines()[-1]
    )
    assert "deepspeed" not in one.splitlines()[-1]
    two = make("-n", "train-joint", "NPROC=2", "CONFIG=c.yaml").stdout.replace("\\\n", "")
    assert two.rstrip().endswith('-m train.distributed.launcher 2 run "c.yaml"')
    hosts = tmp_path / "hosts"
    hosts.write_text("one slots=8\n")
    many = make("-n", "resume", "RUN=r", f"HOSTFILE={hosts}").stdout
    assert re.search(rf'deepspeed .*--hostfile "{hosts}" .*--module train resume "r"', many)
    earlier = make("-n", "resume", "RUN=r", "CHECKPOINT=step-0000020").stdout
    assert '-m train resume "r" --checkpoint "step-0000020"' in earlier.splitlines()[-1]


def test_evaluations_take_sizes_and_trainings_a_short_look():
    plane = make("-n", "eval-plane", "OPTIONS=--prompts 4 --images 1").stdout
    assert plane.splitlines()[-1].endswith('-m eval plane "emosym-tiny" --prompts 4 --images 1')
    refine = make("-n", "eval-refine", "OPTIONS=--prompts 1 --points 2").stdout
    assert refine.splitlines()[-1].endswith('-m eval refining "emosym-tiny" --prompts 1 --points 2')
    whole = make("-n", "eval", "DATA=d", "RUN=r", "OPTIONS=--count 8 --samples 16 --grids 0").stdout
    assert whole.splitlines()[-1].endswith('"d" --out "r" --count 8 --samples 16 --grids 0')
    for target in ("train-compress", "train-instruct", "train-verify", "train-reinforce", "demo"):
        assert " --short" in make("-n", target, "SHORT=1").stdout.splitlines()[-1]
        assert " --short" not in make("-n", target, "SHORT=0").stdout.splitlines()[-1]


def test_a_study_runs_all_parts_or_one():
    study = "/no/venv/bin/python -m benchmarks.symbiosis_study --out"
    for given, part in ((), "all"), (("PART=tokens", "RUN=r"), "tokens"):
        command = make("-n", "study-symbiosis", "VENV=/no/venv", *given).stdout.splitlines()[-1]
        out = "r" if given else "runs/symbiosis-study"
        assert command.strip() == f'{study} "{out}" --part "{part}"'


def test_setup_says_what_it_does(tmp_path):
    """A Python that says what pip says: steps, sizes, and the downloads that take time."""
    fake = tmp_path / "python"
    fake.write_text(
        """#!/bin/sh
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
  "-m pip "*) echo "Collecting torch==2.13.0"
    echo "  Downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl (190.3 MB)"
    echo "  Downloading six-1.17-py3-none-any.whl (11 kB)"
    echo "Installing collected packages: six, torch" ;;
esac
"""
    )
    fake.chmod(0o755)
    done = make("setup", f"VENV={tmp_path}/venv", f"PYTHON={fake}")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line[:3] for line in said if re.match("[0-9]/", line)] == ["1/3", "2/3", "3/3"]
    assert any("GB to download" in line for line in said)
    assert said.count("    Downloading torch-2.13.0-cp311-cp311-linux_x86_64.whl (190.3 MB)") == 2
    assert said.count("    Installing collected packages") == 2
    assert not [line for line in said if "six" in line or "Collecting" in line]
    assert said[-1] == f"done: {tmp_path}/venv"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["resume"], "error: RUN is missing; say make resume RUN=..."),
        (["eval", "RUN=r"], "error: DATA is missing; say make eval DATA=..."),
        (["bank-add", "BANK=b"], "error: IMAGES is missing"),
        (["eval", "DATA=d", "RUN=r", "OVERRIDES=a=1"], "error: eval takes no OVERRIDES"),
        (["train-joint", "HOSTFILE=/no/hosts"], "error: no such hostfile: /no/hosts"),
        (["train-joint", "NPROC=0"], "NPROC is 0; expected a positive number of ranks"),
        (["train-joint", "NPROC=two"], "NPROC is two; expected a positive number of ranks"),
        (["setup", "VENV=/tmp/no-venv", "PYTHON=no-python"], "error: no such Python: no-python"),
    ],
)
def test_a_mistake_is_told_before_anything_is_installed(arguments, problem):
    done = make(*arguments)
    assert done.returncode == 2
    assert problem in done.stderr
    assert "pip install" not in done.stdout


def test_an_old_python_is_refused(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.1" && exit\nexit 1\n')
    old.chmod(0o755)
    done = make("setup", f"VENV={tmp_path}/venv", f"PYTHON={old}")
    assert done.returncode == 2
    assert "is Python 3.9.1; expected 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_setup_never_removes_a_folder_that_it_did_not_make(tmp_path):
    (tmp_path / "mine").write_text("precious")
    done = make("setup", f"VENV={tmp_path}", f"PYTHON={sys.executable}")
    assert done.returncode == 2
    assert "was not made by make setup" in done.stderr
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_half_made_environment_is_made_anew_and_a_finished_one_is_kept(tmp_path):
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / ".emosym-begun").touch()
    (venv / "rubbish").touch()
    failing = tmp_path / "python"
    failing.write_text('#!/bin/sh\n[ "$1" = -c ] || exit 1\n')
    failing.chmod(0o755)
    done = make("setup", f"VENV={venv}", f"PYTHON={failing}")
    assert done.returncode == 2
    assert not (venv / "rubbish").exists()
    assert not (venv / ".emosym-setup").exists()

    (venv / ".emosym-setup").write_text("torch==2.12.0\n")
    assert make("-q", "setup", f"VENV={venv}").returncode == 0  # nothing to do
    assert make("-q", "setup", f"VENV={venv}", "TORCH=torch==2.12.0").returncode == 0
    assert make("-q", "setup", f"VENV={venv}", "TORCH=torch==2.13.0").returncode == 1


# --- dependencies -------------------------------------------------------------------------------


def test_every_import_is_declared():
    distributions = metadata.packages_distributions()

    def undeclared(folders: set[str], requirements: dict[str, Requirement]) -> dict[str, set[str]]:
        missing: dict[str, set[str]] = {}
        for path in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
            for module in third_party(path):
                names = {canonicalize_name(name) for name in distributions.get(module, [module])}
                if not names & requirements.keys():
                    missing.setdefault(module, set()).add(str(path.relative_to(ROOT)))
        return missing

    assert undeclared(OURS, declared("bench", "gpu", "text", "trackers")) == {}
    assert undeclared({"tests"}, declared("dev", "text")) == {}


def test_every_declared_dependency_is_pinned_to_a_version_it_allows():
    pinned = pins()
    for name, requirement in declared("dev").items():
        assert name in pinned
        assert requirement.specifier.contains(pinned[name]), requirement


def test_indirect_dependencies_are_pinned_too():
    """Torch's own are left out: they differ between its builds and torch pins them itself."""
    pinned, seen, waiting = pins(), set(), set(declared("dev"))
    while waiting:
        name = waiting.pop()
        seen.add(name)
        for line in [] if name == "torch" else metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting |= {canonicalize_name(requirement.name)} - seen
    assert seen - pinned.keys() == set()
    assert len(seen) > 40


def test_the_two_torch_pins_agree():
    default = re.search(r"^TORCH \?= (\S+?)##", (ROOT / "Makefile").read_text("utf-8"), re.M)[1]
    assert default == f"torch=={pins()['torch']}"


def test_the_checkout_declares_its_packages_and_their_data():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert parser["metadata"]["license"] == "Apache-2.0"
    assert parser["options"]["python_requires"] == ">=3.11"
    patterns = re.split(r",\s*", parser["options.package_data"]["*"])
    code = {".py", ".pyc"}
    for folder in ("emosym", "model_zoo", "memory_bank", "data_tools"):
        shipped = [p for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix not in code]
        assert [p for p in shipped if f"**/*{p.suffix}" not in patterns] == []
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), f"{path.parent} would not be installed"


# --- presets ------------------------------------------------------------------------------------


def test_presets_are_shipped():
    names = {path.stem for path in PRESETS}
    assert names >= {"compress-tiny", "verify-tiny", "joint-tiny", "joint-tiny-oasis", "demo"}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_shipped_preset_loads_and_round_trips(path, tmp_path):
    from train.phases.registry import train_config

    config = load_config(train_config(), path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_config(config), encoding="utf-8")
    assert load_config(train_config(), copy) == config


def test_the_makefile_names_presets_that_exist():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"train/presets/[a-z/-]+\.yaml", text))
    assert len(named) == 6
    assert {name for name in named if not (ROOT / name).is_file()} == set()
