"""The heads on the emotion token."""

from __future__ import annotations

import torch

from emosym.models.heads import AffectHead, EmotionHead


def test_predictions_of_half_precision_are_float32():
    """Probabilities and distances are made of them."""
    state = torch.linspace(-2, 2, 16).view(2, 8).bfloat16()
    emotion, affect = EmotionHead(8, 8, 3).bfloat16(), AffectHead(8, 8).bfloat16()
    logits, point = emotion(state), affect(state)
    assert logits.dtype == point.dtype == torch.float32
    assert torch.equal(point, 3 * (affect.net(state).float() / 3).tanh())
