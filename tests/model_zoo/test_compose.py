from __future__ import annotations

import pytest
import torch

from emosym.errors import UserError
from model_zoo import zoo
from model_zoo.compose import compose
from tests.model_zoo import make

BACKBONE = zoo.HERE / "weights" / "emosym-tiny" / "backbone"


@torch.no_grad()
def answers(model, texts, pictures):
    """Return what the language head says first, where no reasoning token came between."""
    prompts = model.processor.prompts(texts, pictures)
    embedded = model.understander.backbone.embed_prompts(prompts)
    states = model.understander.backbone.read(embedded)
    return model.understander.backbone.logits(states[:, -1])


def test_a_composed_model_keeps_its_backbone_and_gets_new_heads(tmp_path):
    model = compose(BACKBONE, "emosym-tiny", reasoning_tokens=3, hidden=32, pixels=(1024, 2048))
    folder = zoo.save(model, tmp_path / "model")
    loaded, base = zoo.load(folder), zoo.load("emosym-tiny")
    assert loaded.understander.reasoner.tokens == 3
    assert loaded.understander.emotion_head.net[0].out_features == 32
    # 64 x 64 pixels of side 8 are cut to 2048 pixels: 4 x 8 patches or fewer.
    grid = loaded.processor.prompts(["why"], [make.pictures(1)]).image_grid
    assert int(grid.prod()) * 64 <= 2048
    loaded.processor.images.size = base.processor.images.size
    said = [answers(m, ["why", "who"], [[p] for p in make.pictures(2)]) for m in (loaded, base)]
    assert torch.equal(*said)
    start = torch.cat([loaded.understander.reasoner.context, loaded.understander.reasoner.emotion])
    assert start.std().item() == pytest.approx(0.02, rel=0.15)


def test_the_same_seed_makes_the_same_weights():
    made = [compose(BACKBONE, "emosym-tiny", reasoning_tokens=2, seed=seed) for seed in (0, 0, 1)]
    states = [model.head_state() for model in made]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(
        states[0]["understander.reasoner.context"], states[2]["understander.reasoner.context"]
    )


def test_another_family_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"bert|cannot be loaded"):
        compose(tmp_path, "emosym-tiny", reasoning_tokens=1)


@pytest.mark.parametrize("source", ["nobody/has-this-model", "no such folder", "a/b/c"])
def test_what_is_neither_a_folder_nor_on_the_hub(source, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=f"^no folder '{source}', and no such model"):
        compose(source, "emosym-tiny", reasoning_tokens=1)
