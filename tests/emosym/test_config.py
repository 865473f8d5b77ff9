from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from emosym.config import dump_config, load_config
from emosym.errors import UserError


@dataclass(kw_only=True, slots=True, frozen=True)
class Optim:
    lr: float = 1e-3
    kind: Literal["adamw", "sgd"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise UserError("lr is not positive", got=self.lr, fix="set optim.lr")


@dataclass(kw_only=True, slots=True)
class Phase:
    name: str
    steps: int = 1
    optim: Optim = field(default_factory=lambda: Optim(lr=0.5))


@dataclass(kw_only=True, slots=True)
class Verify:
    beta: float = 0.1
    samples: int = 4
    weights: dict[str, float] = field(default_factory=lambda: {"answer": 1.0})

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"samples is {self.samples}; expected at least 2")


@dataclass(kw_only=True, slots=True)
class Run:
    seed: int = 0
    data: Path | None = None
    note: str = ""
    deterministic: bool = False
    optim: Optim = field(default_factory=Optim)
    verify: Verify = field(default_factory=Verify)
    phases: list[Phase] = field(default_factory=list)
    experts: dict[str, Phase] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    extra: Optim | None = None


@dataclass(kw_only=True, slots=True)
class Needs:
    steps: int
    phase: Phase


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def message(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_source_the_defaults_come_back_as_plain_dataclasses():
    run = load_config(Run, None)
    assert run == Run()
    assert type(run.optim) is Optim
    assert type(run.verify.weights) is dict
    assert type(run.phases) is list


def test_precedence_is_defaults_base_parent_file_overrides(tmp_path):
    write(
        tmp_path,
        base="seed: 2\nnote: base\nverify: {beta: 0.2, samples: 8}\n",
        run="extends: base.yaml\nnote: file\nverify: {beta: 0.3}\n",
    )
    run = load_config(
        Run,
        tmp_path / "run.yaml",
        ["verify.beta=0.4", "verify.beta=0.5"],
        base={"seed": 1, "deterministic": True, "verify": {"samples": 3}},
    )
    assert run.deterministic is True  # only in base
    assert run.seed == 2  # the parent file wins over base
    assert run.note == "file"  # the file wins over its parent
    assert run.verify.samples == 8
    assert run.verify.beta == 0.5  # the last override wins


def test_extends_follows_a_chain_relative_to_each_file(tmp_path):
    (tmp_path / "deep").mkdir()
    write(tmp_path, root="seed: 1\nnote: root\n")
    write(tmp_path / "deep", mid="extends: ../root.yaml\nnote: mid\n", leaf="extends: mid.yaml\n")
    run = load_config(Run, tmp_path / "deep" / "leaf.yaml")
    assert (run.seed, run.note) == (1, "mid")


def test_lists_and_mappings_of_names_replace_and_sections_merge(tmp_path):
    """In each layer over the one below it: a weight that is not named is not there."""
    write(
        tmp_path,
        base="phases: [{name: a}, {name: b}]\nverify: {beta: 2, weights: {format: 0.5}}\n"
        "experts: {x: {name: a, steps: 3}}\noptions: {near: {a: 1, b: 2}, far: 3}\n",
        run="extends: base.yaml\nphases: [{name: c}]\nverify: {weights: {length: 2}}\n"
        "experts: {y: {name: b}}\noptions: {near: {a: 5}}\n",
    )
    run = load_config(Run, tmp_path / "base.yaml")
    assert run.verify == Verify(beta=2, weights={"format": 0.5})  # without `answer: 1.0`
    run = load_config(Run, tmp_path / "run.yaml")
    assert [phase.name for phase in run.phases] == ["c"]
    assert run.verify == Verify(beta=2, weights={"length": 2.0})
    assert run.experts == {"y": Phase(name="b")}
    assert run.options == {"near": {"a": 5, "b": 2}, "far": 3}  # of a class: a section
    run = load_config(Run, tmp_path / "run.yaml", ["verify.weights={answer: 0.25}"])
    assert run.verify == Verify(beta=2, weights={"answer": 0.25})
    run = load_config(Run, tmp_path / "run.yaml", ["verify={weights: {answer: 0.25}}"])
    assert run.verify == Verify(beta=2, weights={"answer": 0.25})


def test_an_override_sets_one_entry_of_a_mapping():
    run = load_config(Run, None, ["verify.weights.format=0.5", "verify.weights.answer=0"])
    assert run.verify.weights == {"answer": 0.0, "format": 0.5}
    run = load_config(Run, None, ["verify.weights={format: 1}", "verify.weights.length=2"])
    assert run.verify.weights == {"format": 1.0, "length": 2.0}


def test_an_empty_mapping_replaces(tmp_path):
    """In a file as in an override; of a section it leaves the defaults."""
    write(tmp_path, base="verify: {weights: {format: 0.5}}\n", only="extends: base.yaml\n")
    write(tmp_path, run="extends: base.yaml\nverify: {weights: {}}\n")
    assert load_config(Run, tmp_path / "run.yaml").verify.weights == {}
    assert load_config(Run, tmp_path / "only.yaml").verify.weights == {"format": 0.5}
    emptied = load_config(Run, tmp_path / "only.yaml", ["verify.weights={}"])
    assert emptied.verify.weights == {}
    assert load_config(Run, tmp_path / "only.yaml", ["verify={}"]).verify == Verify()
    assert load_config(Run, None, ["optim={}"], base={"optim": {"lr": 2}}).optim == Optim()


def test_a_partial_section_keeps_the_other_defaults_of_its_place():
    overrides = ["phases=[{name: a, optim: {kind: sgd}}]", "experts.x.name=b", "extra.kind=sgd"]
    run = load_config(Run, None, overrides)
    assert run.phases[0].optim == Optim(lr=0.5, kind="sgd")  # 0.5 is Phase's own default
    assert run.experts == {"x": Phase(name="b")}
    assert run.extra == Optim(lr=1e-3, kind="sgd")


def test_an_override_reaches_into_a_list():
    run = load_config(Run, None, ["phases=[{name: a}, {name: b}]", "phases.1.steps=7"])
    assert [phase.steps for phase in run.phases] == [1, 7]


@pytest.mark.parametrize(
    ("text", "value"), [("1e-4", 1e-4), ("1E3", 1000.0), ("3", 3.0), (".5", 0.5), ("1_000", 1000.0)]
)
def test_numbers_are_floats_in_files_and_overrides(tmp_path, text, value):
    write(tmp_path, run=f"optim: {{lr: {text}}}\n")
    for run in (
        load_config(Run, tmp_path / "run.yaml"),
        load_config(Run, None, [f"optim.lr={text}"]),
    ):
        assert run.optim.lr == value
        assert type(run.optim.lr) is float


def test_null_empties_what_is_optional_and_nothing_else():
    base = {"data": "photos", "extra": {"lr": 2}}
    run = load_config(Run, None, ["data=null", "extra=null"], base=base)
    assert (run.data, run.extra) == (None, None)
    text = message(lambda: load_config(Run, None, ["seed=null", "verify=null"]))
    assert "seed: got null; expected an integer (in override 'seed=null')" in text
    assert "verify: got null; expected a section of keys (beta, samples, weights)" in text
    text = message(lambda: load_config(Run, None, base={"note": None}))
    assert "note: got null; expected text (in base)" in text


def test_every_problem_is_reported_at_once_with_its_place(tmp_path):
    write(
        tmp_path,
        base="verify: {bata: 0.1}\n",
        run="extends: base.yaml\nsede: 1\nlr: 3\noptim: {kind: adam}\nphases: [{steps: many}]\n",
    )
    path = tmp_path / "run.yaml"
    text = message(
        lambda: load_config(Run, path, ["verify.samples=1", "seed=1.5", "k v"], {"note": True})
    )
    assert text.startswith(f"{path}: 10 problems: (1) ")
    for problem in (
        "override 'k v' cannot be read; expected key=value",
        "seed: got 1.5; expected an integer (in override 'seed=1.5')",
        f"optim.kind: got 'adam'; expected one of adamw, sgd (in {path})",
        f"verify.bata: unknown key; did you mean 'beta'? (in {tmp_path / 'base.yaml'})",
        f"phases.0.name: required, but not given; expected text (in {path})",
        f"phases.0.steps: got 'many'; expected an integer (in {path})",
        f"sede: unknown key; did you mean 'seed'? (in {path})",
        f"lr: unknown key; did you mean 'optim.lr'? (in {path})",
        "note: got True; expected text (in base)",
        "verify: samples is 1; expected at least 2 (in override 'verify.samples=1')",
    ):
        assert problem in text


def test_post_init_problems_of_several_sections_are_collected():
    text = message(lambda: load_config(Run, None, ["verify.samples=1", "optim.lr=-1"]))
    assert "2 problems" in text
    assert "optim: lr is not positive; got -1.0; set optim.lr" in text
    assert "verify: samples is 1; expected at least 2" in text


def test_required_values_are_named():
    text = message(lambda: load_config(Needs, None))
    assert "steps: required, but not given; expected an integer" in text
    assert "phase: required, but not given; expected a section of keys (name, steps, optim)" in text
    needs = load_config(Needs, None, ["steps=2", "phase.name=a"])
    assert needs == Needs(steps=2, phase=Phase(name="a"))


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("seed=true", "seed: got True; expected an integer"),
        ("optim.lr=true", "optim.lr: got True; expected a finite number"),
        ("optim.lr=fast", "optim.lr: got 'fast'; expected a finite number"),
        ("optim.betas=[1]", "optim.betas: got [1]; expected tuple[float, float]"),
        ("deterministic=perhaps", "deterministic: got 'perhaps'; expected true or false"),
        ("phases={}", "phases: got {}; expected a list, each a section of keys (name"),
        ("verify.weights=[1]", "got [1]; expected a mapping of names, each to a finite number"),
        ("verify.weights.answer=x", "verify.weights.answer: got 'x'; expected a finite number"),
        ("verify=3", "verify: got 3; expected a section of keys (beta, samples, weights)"),
        ("seed.deep=3", "seed: got {'deep': 3}; expected an integer"),
        ("phases.0.steps=3", "override 'phases.0.steps=3' cannot be applied: phases has no item 0"),
        ("phases.x.steps=3", "cannot be applied: phases has no item x; it has none"),
        ("seed=010", "010 is another number in YAML; write it in plain decimals"),
        ("seed=1:30", "cannot be applied: 1:30 is another number in YAML"),
        ("optim.lr=nan", "optim.lr: got 'nan'; expected a finite number"),
        ("verify.weights={answer: -.inf}", "weights.answer: got -inf; expected a finite number"),
        (f"seed={'[' * 100_000}", "cannot be applied: nested deeper than 50 levels"),
        ("phases=[1,", "override 'phases=[1,' cannot be applied"),
        ("=3", "override '=3' cannot be read; expected key=value"),
        ("seed", "override 'seed' cannot be read; expected key=value"),
        ("a..b=3", "override 'a..b=3' cannot be read; expected key=value"),
        ("nothing_near=1", "nothing_near: unknown key; known keys: seed, data, note"),
    ],
)
def test_a_bad_override_is_one_clear_line(override, problem):
    assert problem in message(lambda: load_config(Run, None, [override]))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ": is empty; expected a mapping"),
        ("# only a comment\n", ": is empty; expected a mapping"),
        ("- a\n- b\n", ": is a list; expected a mapping"),
        ("just words\n", ": just words: unknown key"),
        ("seed: 1\nnote: [a\n", ":3: not valid YAML: "),
        ("seed: 1\nseed: 2\n", ":2: not valid YAML: found duplicate key"),
        ("seed: 1\nnote: " + "[" * 100_000, ":2: not valid YAML: nested deeper than 50 levels"),
        ("seed: 1\nverify: {samples: 0o7, beta: -012}", ":2: not valid YAML: -012 is another"),
        ("extends: [a]\n", ": extends is not a file name; got ['a']"),
        ("extends: nowhere.yaml\n", ": extends a file that does not exist; got "),
        ("verify: 3\n", ": verify: got 3; expected a section"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, text, problem):
    write(tmp_path, run=text)
    error = message(lambda: load_config(Run, tmp_path / "run.yaml"))
    assert error.startswith(str(tmp_path / "run.yaml"))
    assert problem in error


def test_files_that_cannot_be_read(tmp_path):
    assert "no such configuration file" in message(lambda: load_config(Run, tmp_path / "no.yaml"))
    assert "cannot be read" in message(lambda: load_config(Run, tmp_path))
    (tmp_path / "image.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    assert "UTF-8" in message(lambda: load_config(Run, tmp_path / "image.yaml"))


def test_presets_in_a_circle_are_refused(tmp_path):
    write(tmp_path, a="extends: b.yaml\n", b="extends: a.yaml\n")
    assert "in a circle; got a.yaml -> b.yaml -> a.yaml" in message(
        lambda: load_config(Run, tmp_path / "a.yaml")
    )


texts = st.text(
    st.characters(codec="utf-8", exclude_characters="$\0"), max_size=12
) | st.sampled_from(["1e-4", "yes", "null", "3", "~", "0x10", "a: b", "???!", "2026-01-01"])


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(-(2**40), 2**40),
    note=texts,
    lr=st.floats(1e-30, 1e30),
    kind=st.sampled_from(["adamw", "sgd"]),
    weights=st.dictionaries(st.text("abc_", min_size=1), st.floats(-1e9, 1e9), max_size=3),
    names=st.lists(texts, max_size=3),
    data=st.none() | st.just(Path("some/folder")),
)
def test_dump_and_load_round_trip(tmp_path_factory, seed, note, lr, kind, weights, names, data):
    run = Run(
        seed=seed,
        note=note,
        data=data,
        optim=Optim(lr=lr, kind=kind),
        verify=Verify(weights={"answer": 1.0, **weights}),
        phases=[Phase(name=name) for name in names],
        extra=Optim() if seed % 2 else None,
    )
    path = tmp_path_factory.mktemp("dump") / "run.yaml"
    path.write_text(dump_config(run), encoding="utf-8")
    assert load_config(Run, path) == run
    assert "!!python" not in path.read_text(encoding="utf-8")
    yaml.safe_load(path.read_text(encoding="utf-8"))  # any YAML reader can read it


@dataclass(kw_only=True, slots=True)
class Renamed:
    RENAMED: ClassVar[Mapping[str, str]] = {"lr": "learning_rate", "warmup": "schedule.steps"}
    learning_rate: float = 1e-3
    schedule: Verify = field(default_factory=Verify)


@dataclass(kw_only=True, slots=True)
class Outer:
    RENAMED: ClassVar[Mapping[str, str]] = {"optim.beta": "schedule.beta", "speed": "total"}
    total: int
    seed: int = 0
    optim: Renamed = field(default_factory=Renamed)
    schedule: Verify = field(default_factory=Verify)
    parts: dict[str, Renamed] = field(default_factory=dict)
    stages: list[Renamed] = field(default_factory=list)


def test_an_old_key_is_refused_with_its_new_name(tmp_path):
    write(tmp_path, run="total: 1\noptim: {lr: 0.5}\n")
    path = tmp_path / "run.yaml"
    assert message(lambda: load_config(Outer, path)) == (
        f"{path}: optim.lr: renamed; got lr=0.5; use optim.learning_rate (in {path})"
    )
    assert load_config(Outer, None, ["total=1", "optim.learning_rate=0.5"]).optim == Renamed(
        learning_rate=0.5
    )


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("optim.lr=1", "optim.lr: renamed; got lr=1; use optim.learning_rate"),
        ("optim.warmup=2", "optim.warmup: renamed; got warmup=2; use optim.schedule.steps"),
        ("optim.beta=3", "optim.beta: renamed; got beta=3; use schedule.beta"),
        ("parts={a: {lr: 4}}", "parts.a.lr: renamed; got lr=4; use parts.a.learning_rate"),
        ("parts.b.lr=5", "parts.b.lr: renamed; got lr=5; use parts.b.learning_rate"),
        ("stages=[{lr: 6}]", "stages.0.lr: renamed; got lr=6; use stages.0.learning_rate"),
    ],
)
def test_an_old_key_is_refused_in_every_kind_of_section(override, problem):
    error = message(lambda: load_config(Outer, None, ["total=1", override]))
    assert error == f"configuration: {problem} (in override {override!r})"


def test_old_keys_are_reported_together_with_all_other_problems(tmp_path):
    write(tmp_path, run="speed: 3\noptim: {lr: 1, learning_rate: x, beta: 2}\nsede: 1\n")
    path = tmp_path / "run.yaml"
    error = message(lambda: load_config(Outer, path, ["parts.a.lr=5"]))
    assert error.startswith(f"{path}: 6 problems: ")
    for problem in (
        "speed: renamed; got speed=3; use total",
        "optim.lr: renamed; got lr=1; use optim.learning_rate",
        "optim.beta: renamed; got beta=2; use schedule.beta",
        "optim.learning_rate: got 'x'; expected a finite number",
        "sede: unknown key; did you mean 'seed'?",
        "parts.a.lr: renamed; got lr=5; use parts.a.learning_rate",
    ):
        assert problem in error
    assert "required" not in error  # `total` was given, under its old name


def test_renamed_is_no_option_itself():
    assert "RENAMED" not in dump_config(Renamed())
    assert "unknown key" in message(lambda: load_config(Renamed, None, ["RENAMED={}"]))


def test_no_text_holds_a_null_character():
    """No path may: it would be an error of Python, without the key."""
    from train.config import DataConfig

    with pytest.raises(UserError, match=r"path: got 'a.x00b'; expected text or null"):
        load_config(DataConfig, None, base={"path": "a\0b"})
