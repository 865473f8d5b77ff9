from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emosym.strict_json import DEPTH, BadJson, read_json


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_good_values_come_back_as_they_were(value):
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False).encode()):
        assert read_json(text) == json.loads(text)


def test_a_pair_of_surrogates_and_a_byte_order_mark_are_text():
    assert read_json('"\\ud83d\\ude00"') == "😀"
    assert read_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    assert read_json("[" * DEPTH + "]" * DEPTH)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"\xff", "not UTF-8 text"),
        ("", "not JSON: Expecting value at column 1"),
        ('{\n"a" 1}', "not JSON: Expecting ':' delimiter at line 2 column 5"),
        ("[" * 100_000, "not JSON that can be read: nested too deeply"),
        ('{"a": ' + "[" * DEPTH + "1" + "]" * DEPTH + "}", "a: nested too deeply"),
        ('{"a": [0, {"b": -1e999}]}', "a.1.b: a number that is NaN, infinite or too large"),
        ("1" + "0" * 400, "a number that is NaN, infinite or too large"),
        ("-1" + "0" * 5000, "a number that is NaN, infinite or too large"),
        ("[Infinity]", "0: a number that is NaN, infinite or too large"),
        ('["\\udc00"]', "0: a text with half a character (a lone surrogate)"),
        ('{"\\udc00": 1}', "\\udc00: a text with half a character (a lone surrogate)"),
        ('{"a": {"b": 1, "b": 1}}', "a.b: this key comes twice"),
        ('[{}, {"a": [{"c": 0, "b": 1, "b": 2}]}]', "1.a.0.b: this key comes twice"),
        ('{"b": 1, "b": {"a": 1, "a": 1}}', "b: this key comes twice"),
    ],
)
def test_what_cannot_be_used_is_an_error_with_its_field(text, problem):
    with pytest.raises(BadJson) as error:
        read_json(text)
    assert str(error.value) == problem


def test_places_in_lists_are_numbers_and_keys_are_texts():
    for text, path in (('[0, {"1": NaN}]', (1, "1")), ('{"1": [NaN]}', ("1", 0)), ("NaN", ())):
        with pytest.raises(BadJson) as error:
            read_json(text)
        assert error.value.path == path


def test_a_repeated_key_among_many_is_found_in_time():
    """Quadratic work on this number of keys would take hours."""
    keys = ", ".join(f'"{number}": 0' for number in range(500_000))
    with pytest.raises(BadJson, match=r"^499999: this key comes twice$"):
        read_json(f'{{{keys}, "499999": 1}}')
