"""Reading token by token through a shared prompt, against one whole forward each answer."""

from __future__ import annotations

import pytest
import torch

from emosym.errors import UserError
from emosym.interfaces import InputEmbeddings
from model_zoo.backbones.decoding import BLOCK, SharedPrefixCache
from model_zoo.backbones.qwen_vl import FAMILIES, load_backbone, new_backbone
from tests.model_zoo import make

TEXTS = ["why", "Which emotion does this image evoke, and which words would you use?"]
GROUP, LENGTH = 3, BLOCK + 8


@pytest.fixture(params=FAMILIES)
def backbone(request):
    return make.backbone(request.param)[0]


@pytest.fixture
def prompt(backbone) -> InputEmbeddings:
    """Return two prompts, one of them padded."""
    processor = make.backbone(backbone.model.config.model_type)[1]
    with torch.no_grad():
        return backbone.embed_prompts(processor.prompts(TEXTS, make.one_each(2)))


def whole(backbone, prompt: InputEmbeddings, row: int, ids: torch.Tensor) -> torch.Tensor:
    """Return the states of all tokens of one answer, read at once without a cache."""
    alone = InputEmbeddings(
        prompt.embeddings[row : row + 1],
        prompt.mask[row : row + 1],
        prompt.positions[:, row : row + 1],
        None if prompt.deepstack is None else prompt.deepstack[:, row : row + 1],
    )
    told = alone.append(backbone.embed_tokens(ids[None]), torch.ones(1, len(ids), dtype=torch.long))
    return backbone.read(told)[0, -len(ids) :]


def opened(backbone, prompt: InputEmbeddings) -> SharedPrefixCache:
    cache = backbone.new_cache()
    backbone.read(prompt, cache)
    return backbone.branch(cache, prompt.mask, GROUP)


@torch.no_grad()
def test_each_token_has_the_states_of_a_whole_forward(backbone, prompt):
    """Over more tokens than there is room for at first."""
    branch = opened(backbone, prompt)
    ids = torch.randint(20, 60, (2 * GROUP, LENGTH), generator=torch.Generator().manual_seed(0))
    position = prompt.positions.amax((0, 2)).repeat_interleave(GROUP) + 1
    found = torch.stack(
        [
            backbone.read_one(
                backbone.embed_tokens(ids[:, t]), (position + t).expand(3, -1), branch
            )
            for t in range(LENGTH)
        ],
        1,
    )
    assert branch.length == LENGTH
    for row in range(2 * GROUP):
        expected = whole(backbone, prompt, row // GROUP, ids[row])
        assert (found[row] - expected).abs().max() < 1e-4
    assert (found[0] - found[1]).abs().max() > 1e-2


@torch.no_grad()
def test_some_answers_go_on_alone(backbone, prompt):
    """Not as many of each prompt, and then fewer still."""
    branch = opened(backbone, prompt)
    ids = torch.randint(20, 60, (2 * GROUP, 6), generator=torch.Generator().manual_seed(1))
    position = prompt.positions.amax((0, 2)).repeat_interleave(GROUP) + 1
    rows = torch.arange(2 * GROUP)
    for t in range(6):
        if t in (2, 4):
            kept = torch.tensor({2: [0, 1, 2, 4], 4: [1, 3]}[t])
            branch.keep(kept)
            rows = rows[kept]
        embedded = backbone.embed_tokens(ids[rows, t])
        found = backbone.read_one(embedded, (position[rows] + t).expand(3, -1), branch)
        for state, row in zip(found, rows.tolist(), strict=True):
            expected = whole(backbone, prompt, row // GROUP, ids[row, : t + 1])[-1]
            assert (state - expected).abs().max() < 1e-4
    assert rows.tolist() == [1, 4]


@torch.no_grad()
def test_the_prompts_are_held_once(backbone, prompt):
    cache = backbone.new_cache()
    backbone.read(prompt, cache)
    branch = backbone.branch(cache, prompt.mask, GROUP)
    for layer, keys, values in zip(cache.layers, branch.keys, branch.values, strict=True):
        assert keys.prompts.data_ptr() == layer.keys.data_ptr()
        assert values.prompts.data_ptr() == layer.values.data_ptr()
        assert keys.answers.shape[0] == GROUP * len(keys.prompts)


def test_sliding_windows_are_refused(tmp_path):
    config = make.architecture("qwen2_5_vl", make.tokenizer())
    text = config["text_config"] | {"use_sliding_window": True, "max_window_layers": 0}
    config["text_config"] = text | {"sliding_window": 8}
    with pytest.raises(UserError, match="layers with sliding-window attention; expected full"):
        new_backbone(config, make.tokenizer(), make.IMAGE_PROCESSOR)
    backbone, processor = make.backbone("qwen2_5_vl")
    backbone.model.save_pretrained(tmp_path)
    processor.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"full_attention"', '"sliding_attention"'))
    with pytest.raises(UserError, match="layers with sliding-window attention"):
        load_backbone(tmp_path, torch.float32)
