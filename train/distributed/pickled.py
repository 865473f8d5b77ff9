"""What a pickle would make, found out without making any of it."""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterable, Iterator
from typing import Any

DEEPEST = 20
"""Maximum nesting of the values; DeepSpeed writes 8 levels, 2 of them in a tensor."""
MOST = 10_000_000
"""Maximum number of values plus the characters of their texts. A value in several containers counts
once for each, because code that hashes, compares or prints containers visits it as often."""
LONGEST = 1_000_000
"""Maximum number of opcodes; DeepSpeed writes about 50 for each tensor."""

Outline = int | list["Outline"]
"""A value without its content: the size of a leaf, or the outlines of what a container holds."""

_LEAVES = {"NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1"}
_TEXTS = {"BINUNICODE", "SHORT_BINSTRING"}
_EMPTY = {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MADE = {"REDUCE": 2, "NEWOBJ": 2, "BINPERSID": 1}
"""Opcode -> number of values that it takes to make an object of them."""
_ADDED = {"APPEND": 1, "SETITEM": 2, "BUILD": 1}
"""Opcode -> number of values that it puts into the value below them."""


class Excess(ValueError):  # noqa: N818 (like `BadJson`: it describes the input)
    """A pickle of something else, or of too much; its text says of what."""


def check_pickle(data: bytes, classes: Iterable[str]) -> None:
    """Check a pickle before any of it is made: hashing what it makes may take for ever.

    A tuple that holds another one twice, and so on for 60 levels, is a short pickle. As a key of a
    mapping it is hashed by the unpickler itself, and in an error it is printed.

    Args:
        data: a pickle as `torch.save` writes it (protocol 2).
        classes: regular expressions of the classes and functions that it may name, `module name`.

    Raises:
        Excess: another class, more than `MOST` values, more than `DEEPEST` levels, more than
            `LONGEST` opcodes, or no such pickle.
    """
    known: dict[int, tuple[int, int]] = {}
    for outline in _outlines(data, re.compile("|".join(f"(?:{each})" for each in classes))):
        _measure(outline, DEEPEST, known)


def _outlines(data: bytes, classes: re.Pattern[str]) -> list[Outline]:
    """Return the outlines of all values that a pickle makes, also of those that it drops."""
    stack: list[Outline] = []
    outer: list[list[Outline]] = []
    memo: dict[int, Outline] = {}
    made: list[Outline] = []

    def take(count: int) -> list[Outline]:
        if count > len(stack):
            raise Excess("another pickle")
        taken = stack[len(stack) - count :]
        del stack[len(stack) - count :]
        return taken

    def push(outline: Outline) -> None:
        stack.append(outline)
        made.append(outline)

    opcodes: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]] = pickletools.genops(data)
    try:
        for number, (opcode, argument, _) in enumerate(opcodes):
            if number == LONGEST:
                raise Excess(f"more than {LONGEST:,} opcodes")
            name = opcode.name
            if name in _LEAVES:
                stack.append(1)
            elif name in _TEXTS:
                push(1 + len(argument))
            elif name in _EMPTY:
                push([])
            elif name == "GLOBAL":
                if not classes.fullmatch(argument):
                    raise Excess(argument.replace(" ", "."))
                stack.append(1)
            elif name in _TUPLES:
                push(take(_TUPLES[name]))
            elif name in _MADE:  # of an object: what its arguments hold
                *_, inner = take(_MADE[name])
                push([inner] if isinstance(inner, int) else [*inner])
            elif name in _ADDED:
                _add(take(_ADDED[name]), stack)
            elif name == "MARK":
                outer.append(stack)
                stack = []
            elif name in ("TUPLE", "APPENDS", "SETITEMS"):
                items, stack = stack, outer.pop()
                if name == "TUPLE":
                    push(items)
                else:
                    _add(items, stack)
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name == "STOP":
                take(1)
            elif name != "PROTO":
                raise Excess("another pickle")
    except (LookupError, ValueError) as error:
        raise error if isinstance(error, Excess) else Excess("another pickle") from error
    return made


def _add(items: list[Outline], stack: list[Outline]) -> None:
    """Put values into the one on top of the stack."""
    holder = stack[-1]
    if isinstance(holder, int):
        raise Excess("another pickle")
    holder += items


def _measure(outline: Outline, room: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return the levels and the number of values of an outline; `known` holds those of containers.

    A container that holds itself has no last level.
    """
    if isinstance(outline, int):
        levels, size = 0, outline
    elif id(outline) in known:
        levels, size = known[id(outline)]
    elif room == 0:
        levels, size = 1, 1
    else:
        inner = [_measure(each, room - 1, known) for each in outline]
        levels = 1 + max((levels for levels, _ in inner), default=0)
        size = 1 + sum(size for _, size in inner)
        known[id(outline)] = levels, size
    if levels > room:
        raise Excess(f"values nested deeper than {DEEPEST} levels")
    if size > MOST:
        raise Excess(f"more than {MOST:,} values")
    return levels, size
