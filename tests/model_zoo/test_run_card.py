"""The card of a run's model: its front matter is data, whatever the texts in it say."""

from __future__ import annotations

import pytest
import torch
import yaml

from emosym.models.model import EmoSym
from model_zoo import catalogue, zoo
from model_zoo.card import license_of
from model_zoo.run_card import run_card

EVIL = "a\n---\nlicense: mit\n---\n`<script>` | x \x1b[2J\u202e"


class Parts:
    """As much of a model as a card reads."""

    understander = torch.nn.Linear(100, 100, bias=False)
    generator = torch.nn.Linear(200, 100, bias=False)
    autoencoder = torch.nn.Linear(300, 100, bias=False)


def card(**texts) -> str:
    known = {
        "base": "emosym-tiny",
        "base_card": "---\nlicense: apache-2.0\n---\n# emosym-tiny\n",
        "data": "AffectWorld",
        "facts": {"Command": "make train-joint"},
    } | texts
    return run_card(
        known.pop("name", "run"),
        Parts(),
        steps={"compress": 40, "generate": 80},
        scores=[("emotion accuracy", "0.5", "0.75", "+0.250 [+0.100, +0.400]", "better")],
        metrics={"accuracy": 0.75},
        **known,
    )


def parts(text: str) -> tuple[dict, str]:
    empty, front, body = text.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(front), body


def test_a_card_by_hand() -> None:
    assert set(EmoSym.PARTS) == {"understander", "generator", "autoencoder"}
    front, body = parts(card())
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == "emosym-tiny"
    (result,) = front["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.75}]
    assert "- Base model: `emosym-tiny`" in body
    assert "- Data: `AffectWorld`" in body
    assert "- License: `apache-2.0, as the base model; " in body
    assert "- Command: `make train-joint`" in body
    assert "- Steps: `compress 40, generate 80`" in body
    assert "understander 0.01 M, generator 0.02 M, autoencoder 0.03 M" in body
    row = r"| emotion accuracy | 0.5 | 0.75 | +0.250 \[+0.100, +0.400\] | better |"
    assert row in body
    python = body.partition("```python\n")[2].partition("```")[0]
    assert python == (
        "from emosym import EmoSymPipeline\n\n"
        'pipeline = EmoSymPipeline.from_pretrained("path/to/this/folder")\n'
    )


@pytest.mark.parametrize("name", ["name", "base", "data", "facts"])
def test_texts_from_outside_add_no_markup_and_no_front_matter(name: str) -> None:
    text = card(**{name: {"Command": EVIL} if name == "facts" else EVIL})
    front, body = parts(text)
    assert front["license"] == "apache-2.0"
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\n---\nlicense" not in text
    assert "`<script>`" not in body


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\r\nlicense: cc-by-4.0\r\n---\r\nText", "cc-by-4.0"),
        ("# No front matter\nlicense: mit\n", None),
        ("---\nlicense: [mit]\n---\n", None),
        ("---\nlicense: 'MIT; rm -rf'\n---\n", "MIT"),
        ("---\n!!python/object/apply:os.system ['true']\n---\n", None),
        ("---\n: : :\n- [\n---\n", None),
        ("", None),
        ("# Model\n\nWeights are Apache-2.0.\n", "Apache-2.0"),
    ],
)
def test_the_license_is_that_of_the_base(text: str, found: str) -> None:
    assert license_of(text) == found


def test_the_shipped_model_names_its_license() -> None:
    folder = catalogue.folder_of("emosym-tiny")
    assert license_of(zoo.read_card(folder)) == "apache-2.0"
