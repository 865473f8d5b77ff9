from __future__ import annotations

from emosym.errors import UserError, unknown


def test_an_error_is_one_printable_line():
    error = UserError("bad\x1b[2J\u202e", got="a\n b", expected="c", fix="d\x9b")
    assert str(error) == r"bad\x1b[2J\u202e; got a b; expected c; d\x9b"


def test_an_unknown_name_is_shown_with_the_nearest_and_cannot_steer_a_terminal():
    assert str(unknown("dtype", "float3\x072", ["float16", "float32"])) == (
        r"unknown dtype 'float3\x072'; expected one of float16, float32; did you mean 'float32'?"
    )
