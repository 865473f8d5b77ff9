"""The form of one user turn, read from a model's chat template.

A template is a program. It is run a few times when the model is loaded, in a process with limits,
and never again: what it puts around texts and images is the same for every turn.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from model_zoo.received import render_template

TIMEOUT = 120.0
"""Seconds after which the process is ended, on however busy a machine."""
TEXT = "  the user's text  "
"""In place of a user's text; the spaces show whether it is kept as it is."""


@dataclass(frozen=True, slots=True)
class TurnForm:
    """What stands around the images and the text of one user turn."""

    before: str
    image: str
    """Of one image; it holds the image token once."""
    after: str
    """It ends with the header of the assistant's turn."""

    def turn(self, text: str, images: Sequence[str]) -> str:
        """Return a user turn: the images, each already written, then the text."""
        return "".join([self.before, *images, text, self.after])


@functools.lru_cache(maxsize=16)
def turn_form(template: str, image_token: str, tokens: tuple[tuple[str, str], ...]) -> TurnForm:
    """Return the form of a user turn in a chat template.

    Args:
        template: in Jinja.
        image_token: stands for one image.
        tokens: names and texts of special tokens, which a template may write.

    Raises:
        ValueError: a template that cannot be rendered within the limits of `render_template`, or
            whose turns are not images followed by the text as it is.
    """
    text = {"type": "text", "text": TEXT}
    image = {"type": "image"}
    contents = [[*[image] * count, text] for count in (0, 1, 2)]
    none, one, two = _render(template, contents, dict(tokens))
    before, found, after = none.partition(TEXT)
    written = one.removeprefix(before).removesuffix(TEXT + after)
    form = TurnForm(before, written, after)
    images_first = [form.turn(TEXT, [written] * count) for count in (1, 2)]
    if not found or written.count(image_token) != 1 or images_first != [one, two]:
        raise ValueError("the chat template does not write images, then the text, in a user's turn")
    return form


def _render(
    template: str, contents: Sequence[Sequence[dict[str, str]]], tokens: dict[str, str]
) -> list[str]:
    request = {
        "template": template,
        "messages": [[{"role": "user", "content": content}] for content in contents],
        "tokens": tokens,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(Path(render_template.__file__))],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=TIMEOUT,
            check=False,
        )
        answer = json.loads(done.stdout) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError):
        answer = None
    if answer is None:
        raise ValueError(
            f"the chat template needs more than {render_template.CPU_SECONDS} seconds or"
            f" {render_template.MEMORY:,} bytes"
        )
    if "error" in answer:
        raise ValueError(f"the chat template cannot be rendered: {answer['error']}")
    return answer["texts"]
