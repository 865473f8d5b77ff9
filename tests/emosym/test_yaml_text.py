"""YAML from outside: no resolver, no type, no expansion, no endless file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest

from emosym.config import load_config
from emosym.errors import UserError
from emosym.yaml_text import LARGEST, read_yaml


@dataclass(kw_only=True, slots=True)
class Judge:
    path: str | None = None


@dataclass(kw_only=True, slots=True)
class Options:
    text: str = "a"
    number: float = 0.0
    names: list[str] = field(default_factory=list)
    judge: Judge = field(default_factory=Judge)
    free: dict[str, Any] = field(default_factory=dict)


def message(call) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


REFERENCES = [
    "${oc.env:SECRET_OF_TEST}",
    "${oc.env:SECRET_OF_TEST,default}",
    "a ${oc.env:SECRET_OF_TEST} b",
    "${oc.decode:${oc.env:SECRET_OF_TEST}}",
    "${oc.deprecated:number}",
    "${oc.create:[1]}",
    "${oc.select:number}",
    "${mine:1}",
    "${number}",
    "${.number}",
    "\\${number}",
]


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("key", ["text", "number", "judge.path", "free.x"])
def test_a_reference_is_refused_and_reads_nothing(key, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_TEST", "0.25")
    *outer, last = key.split(".")
    line = "".join(f"{{{name}: " for name in outer) + f"{{{last}: '{reference}'}}"
    (tmp_path / "preset.yaml").write_text(line + "}" * len(outer))
    for call in (
        lambda: load_config(Options, tmp_path / "preset.yaml"),
        lambda: load_config(Options, None, [f"{key}={reference}"]),
    ):
        text = message(call)
        assert f"{key}: got " in text
        assert "${...} is not supported" in text
        assert "0.25" not in text


def test_a_reference_in_a_list_or_a_mapping_is_refused():
    for override in ("names=['${text}']", "free={a: {b: ['${oc.env:HOME}']}}"):
        assert "${...} is not supported" in message(
            lambda o=override: load_config(Options, None, [o])
        )


@pytest.mark.parametrize(
    "key", ["judge.api_key", "judge.apikey", "judge.API_KEY", "judge.password"]
)
def test_a_key_in_a_configuration_is_refused_and_not_shown(key, tmp_path):
    section, name = key.split(".")
    (tmp_path / "preset.yaml").write_text(f"{section}: {{{name}: sk-123}}")
    for call in (
        lambda: load_config(Options, tmp_path / "preset.yaml"),
        lambda: load_config(Options, None, [f"{key}=sk-123"]),
    ):
        text = message(call)
        assert f"{key}: unknown key; keys are read from environment variables only" in text
        assert "EMOSYM_JUDGE_KEY" in text
        assert "sk-123" not in text


@pytest.mark.parametrize(
    "override",
    [
        "number={api_key: sk-123}",
        "names={path: a, headers: {Authorization: 'Bearer sk-123'}}",
        "names=[{hfToken: sk-123}, 2]",
        "judge={bearer: sk-123}",
        "judge.key=sk-123",
        "judge.accessToken={a: sk-123}",
        "number=https://me:sk-123@host",
        "number=https://host?auth=sk-123",
        "judge.secret=[sk-123",
        "judge.secret=!sk-123 a",
        "judge.key sk-123",
        "judge.key:sk-123=1",
    ],
)
def test_no_value_of_a_key_is_in_a_message(override, tmp_path):
    texts = [message(lambda: load_config(Options, None, [override]))]
    name, equals, value = override.partition("=")
    if equals and ":" not in name and "!" not in value and not value.startswith("[s"):
        section, _, key = name.rpartition(".")
        lines = f"{section}:\n  {key}: {value}" if section else f"{key}: {value}"
        (tmp_path / "preset.yaml").write_text(lines)
        texts.append(message(lambda: load_config(Options, tmp_path / "preset.yaml")))
    for text in texts:
        assert "sk-123" not in text
        assert "***" in text or "unknown key" in text


@dataclass(kw_only=True, slots=True)
class Account:
    api_key: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if self.api_key:
            raise UserError("a wrong account", got=f"{self.api_key!r} of {self.name}")


def test_the_check_of_a_section_does_not_tell_the_value_of_a_key():
    text = message(lambda: load_config(Account, None, ["api_key=sk-123", "name=me"]))
    assert text == "configuration: a wrong account; got '***' of me"


def test_a_number_of_tokens_is_no_secret():
    text = message(lambda: load_config(Options, None, ["number=max_tokens"]))
    assert "number: got 'max_tokens'" in text


LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (LAUGHS, ":1: not valid YAML: anchors and aliases are not supported (&a0)"),
        ("a: &x 1\nb: *x\n", "anchors and aliases"),
        ("a: &a [*a]\n", "anchors and aliases"),
        ("text: !!python/object/apply:os.system [id]\n", ":1: not valid YAML: tags are not"),
        ("text: !!python/object/apply:pathlib.PosixPath [/]\n", "tags are not supported"),
        ("text: !!python/name:os.system\n", "tags are not supported"),
        ("text: !!binary aGk=\n", "tags are not supported"),
        ("text: !mine x\n", "tags are not supported"),
        ("!!map {text: x}\n", "tags are not supported"),
        ("judge: {path: a, path: b}\n", "found duplicate key path"),
        ("text: a\n---\ntext: b\n", "not valid YAML"),
        ("text: '" + "x" * LARGEST + "'\n", "is too large for a configuration"),
        ("text: \x00\n", "not valid YAML"),
    ],
)
def test_yaml_that_is_not_plain_data(text, problem, tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text(text)
    error = message(lambda: load_config(Options, path))
    assert error.startswith(str(path))
    assert problem in error


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "preset.yaml")
    assert "cannot be read (not a file)" in message(lambda: read_yaml(tmp_path / "preset.yaml"))


def test_a_long_chain_of_presets_is_refused(tmp_path):
    for number in range(60):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    text = message(lambda: load_config(Options, tmp_path / "0.yaml"))
    assert "more than 50 presets extend each other" in text
