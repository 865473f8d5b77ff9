"""A received chat template runs no code, and each limit of its process acts by itself."""

from __future__ import annotations

import resource

import jinja2
import pytest

from model_zoo.received.chat_template import turn_form
from model_zoo.received.render_template import CPU_SECONDS, MEMORY

LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def refused(template: str) -> str:
    with pytest.raises(ValueError, match=r"^the chat template ") as error:
        turn_form(template, "<|image_pad|>", ())
    return str(error.value)


def test_it_runs_no_code(tmp_path):
    marker = tmp_path / "marker"
    attack = f"{{{{ cycler.__init__.__globals__.os.system('touch {marker}') }}}}"
    assert refused(attack).startswith("the chat template cannot be rendered: SecurityError: ")
    assert not marker.exists()
    # The attack is one: it acts without the sandbox.
    jinja2.Template(attack).render()
    assert marker.exists()


def test_its_text_is_short():
    text = "{% for a in range(99999) %}{{ 'x' * 999 }}{% endfor %}"
    assert "its text is longer than 65,536 characters" in refused(text)


def test_its_memory_is_limited():
    """Also of a value that leaves no text."""
    assert "cannot be rendered: MemoryError" in refused(f"{{{{ ('x' * {MEMORY})|length }}}}")


def test_its_processor_time_is_limited():
    """The process ends by itself, long before `TIMEOUT`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert f"needs more than {CPU_SECONDS} seconds" in refused(LOOPS)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < CPU_SECONDS + 1
