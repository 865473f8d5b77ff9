"""The value of an override is everything after its first `=`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from emosym.config import dump_config, load_config
from emosym.errors import UserError


@dataclass(kw_only=True, slots=True)
class Item:
    name: str = ""


@dataclass(kw_only=True, slots=True)
class Options:
    text: str = "a"
    maybe: str | None = "a"
    path: Path | None = None
    kind: Literal["on", "off", "1e3"] = "off"
    number: float = 0.0
    count: int = 0
    yes: bool = False
    names: list[str] = field(default_factory=list)
    weights: dict[str, float] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)
    items: list[Item] = field(default_factory=lambda: [Item(), Item()])


TEXTS = [
    "/d/a #b",
    "#b",
    "a: b",
    "a=b=c",
    "'quoted'",
    '"double"',
    "it's",
    " leading and trailing ",
    "two\nlines",
    "[not, a, list]",
    "{not: a mapping}",
    "- item",
    "yes",
    "1e-4",
    "007",
    "12:30",
    "2026-01-01",
    "~",
    "&anchor",
    "*alias",
    "!!python/name:os.system",
    "!tag",
    "| block",
    "> folded",
    "%directive",
    "@at",
    "`tick`",
    "C:\\new",
    "ünï ©",
    "",
    "a\tb",
    "$HOME",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("key", ["text", "maybe", "items.1.name"])
def test_text_is_taken_as_it_is(key, text, tmp_path):
    options = load_config(Options, None, [f"{key}={text}"])
    found = {"text": options.text, "maybe": options.maybe, "items.1.name": options.items[1].name}
    assert found[key] == text
    saved = tmp_path / "config.yaml"  # a resumed run reads the same
    saved.write_text(dump_config(options), encoding="utf-8")
    assert load_config(Options, saved) == options


@pytest.mark.parametrize("text", [text for text in TEXTS if text])
def test_a_path_is_taken_as_it_is(text):
    assert load_config(Options, None, [f"path={text}"]).path == Path(text)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("maybe=null", "maybe", None),
        ("path=null", "path", None),
        ("text=null", "text", "null"),  # not optional, so it is a text
        ("kind=on", "kind", "on"),  # YAML would read true
        ("kind=1e3", "kind", "1e3"),
        ("number=1e-4", "number", 1e-4),
        ("number= 3 ", "number", 3.0),
        ("count=-2", "count", -2),
        ("yes=true", "yes", True),
        ("yes=on", "yes", True),
        ("names=[a, 'b #c', \"d: e\", f=g]", "names", ["a", "b #c", "d: e", "f=g"]),
        ("names=[]", "names", []),
        ("weights={http: 1, affect: 5e-1}", "weights", {"http": 1.0, "affect": 0.5}),
        ("weights.http=2", "weights", {"http": 2.0}),
        ("free={a: [1, {b: c}]}", "free", {"a": [1, {"b": "c"}]}),
        ("free.a=1", "free", {"a": 1}),
    ],
)
def test_other_values_are_yaml(override, key, value):
    found = getattr(load_config(Options, None, [override]), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("count=3 # three", "'# three' is a comment of YAML; quote the value"),
        ("names=[a] #b", "'#b' is a comment of YAML"),
        ("items.2.name=x", "items has no item 2; it has items.0, items.1"),
        ("items.-1.name=x", "items has no item -1"),
        ("items.0.name.deep=x", "items.0.name: got {'deep': 'x'}; expected text"),
        ("names=!!python/object/apply:os.system [id]", "tags are not supported"),
        ("count=&a 1", "anchors and aliases are not supported"),
        ("weights={a: 1, a: 2}", "found duplicate key"),
        ("count=${oc.env:HOME}", "count: got '${oc.env:HOME}'; ${...} is not supported"),
    ],
)
def test_a_value_that_cannot_be_read(override, problem):
    with pytest.raises(UserError) as caught:
        load_config(Options, None, [override])
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_weights_of_a_run():
    """A judge that is not named has no weight; the path of the data is everything after `=`."""
    from train.phases.registry import train_config

    preset = Path("train/presets/demo.yaml")
    config = load_config(
        train_config(),
        preset,
        ["reinforce.reward_weights={label: 1}", "verify_grpo.reward_weights={format: 2}"],
    )
    assert config.section("reinforce").reward_weights == {"label": 1.0}
    assert config.section("verify_grpo").reward_weights == {"format": 2.0}
    assert load_config(train_config(), preset, ["data.path=/d/a #b"]).data.path == "/d/a #b"
