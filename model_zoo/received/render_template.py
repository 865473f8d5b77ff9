"""The process that renders a chat template: JSON on stdin, JSON on stdout; see `chat_template`.

It imports nothing of ours, so that it starts in a fraction of a second. The sandbox keeps a
template from running code; the limits of the process keep it from running for hours or filling the
memory.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

CPU_SECONDS = 3
MEMORY = 2**30
"""Limits of the process, in seconds of processor time and in bytes."""
LONGEST = 2**16
"""Most characters of a rendered text."""


def render(template: str, messages: list[Any], tokens: dict[str, str]) -> str:
    """Return the text of some messages and the header of the answer, as transformers renders it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = json.dumps
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    text = ""
    pieces = environment.from_string(template).generate(
        messages=messages, add_generation_prompt=True, tools=None, documents=None, **tokens
    )
    for piece in pieces:
        text += piece
        if len(text) > LONGEST:
            raise ValueError(f"its text is longer than {LONGEST:,} characters")
    return text


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def main() -> None:
    """Render the template for each list of messages; write the texts, or the error."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    asked = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        texts = [render(asked["template"], one, asked["tokens"]) for one in asked["messages"]]
        answer = {"texts": texts}
    except Exception as error:  # whatever a template raises is an error of the template
        answer = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
