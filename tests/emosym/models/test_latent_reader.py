from __future__ import annotations

import torch

from emosym.interfaces import InputEmbeddings
from emosym.models.latent_reader import LatentReader

TEXTS = ["a dark sky threatens the house", "a cat", ""]


def states() -> torch.Tensor:
    return torch.randn(3, 4, 160, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_logits_against_one_token_at_a_time(tiny):
    """The twin reads each text alone, longer by one token each time."""
    backbone = tiny.understander.backbone
    answers, soft = tiny.processor.answers(TEXTS), states()
    found = LatentReader(backbone)(soft, answers)
    assert found.shape == (*answers.ids.shape, backbone.token_embeddings.shape[0])
    for b in range(3):
        for t in range(int(answers.mask[b].sum())):
            read = torch.cat(
                [soft[b : b + 1], backbone.embed_tokens(answers.ids[b : b + 1, :t])], 1
            )
            places = torch.arange(read.shape[1]).expand(3, 1, -1)
            ones = torch.ones(1, read.shape[1], dtype=torch.long)
            expected = backbone.logits(backbone.read(InputEmbeddings(read, ones, places)))[0, -1]
            assert (found[b, t] - expected).abs().max() < 2e-5


@torch.no_grad()
def test_every_state_is_read(tiny):
    reader, soft = LatentReader(tiny.understander.backbone), states()
    answers = tiny.processor.answers(TEXTS)
    before = reader(soft, answers)
    for k in range(4):
        other = soft.clone()
        other[0, k] += 1
        after = reader(other, answers)
        assert (after[0, 0] - before[0, 0]).abs().max() > 1e-3
        assert (after[1:] - before[1:]).abs().max() < 1e-5
