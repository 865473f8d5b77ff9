from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.__main__ import app
from eval.generation import drawn_training
from eval.generation.attributes import ATTRIBUTES, AttributeReader


def test_the_command_writes_weights_that_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn_training, "HELD_OUT", 20)
    out = tmp_path / "weights.safetensors"
    arguments = ["attribute-reader", "--pictures", "64", "--seed", "3", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    title, *rows, last = done.output.splitlines()
    assert title == "accuracy on 20 held-out pictures, and on the same with blur and noise"
    assert tuple(row.split()[0] for row in rows) == ATTRIBUTES
    shares = [float(share) for row in rows for share in row.split()[1:]]
    assert len(shares) == 14
    assert all(0 <= share <= 1 for share in shares)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    assert re.fullmatch(rf"\d+ s, seed 3; {re.escape(str(out))} {digest}", last)
    AttributeReader.load(out)
