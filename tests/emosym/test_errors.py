from __future__ import annotations

from pathlib import Path

import pytest

from emosym.errors import UserError, in_words, unknown


def test_the_number_of_a_system_error_is_not_told():
    with pytest.raises(FileNotFoundError) as caught:
        Path("no/such").read_bytes()
    error = caught.value
    assert in_words(error) == "No such file or directory: no/such"
    told = UserError("cannot read no/such", got=error, expected="text")
    assert str(told) == "cannot read no/such; got No such file or directory; expected text"


def test_an_error_without_a_number_is_told_as_it_is():
    error = OSError("a library's own words")
    assert in_words(error) == "a library's own words"
    assert str(UserError("cannot start", got=error)) == "cannot start; got a library's own words"


def test_an_error_is_one_printable_line():
    error = UserError("bad\x1b[2J\u202e", got="a\n b", expected="c", fix="d\x9b")
    assert str(error) == r"bad\x1b[2J\u202e; got a b; expected c; d\x9b"


def test_an_unknown_name_is_shown_with_the_nearest_and_cannot_steer_a_terminal():
    assert str(unknown("dtype", "float3\x072", ["float16", "float32"])) == (
        r"unknown dtype 'float3\x072'; expected one of float16, float32; did you mean 'float32'?"
    )
