"""Heads on the emotion token: label, valence and arousal, and the knowledge projection.

Logits and affect are float32 whatever the type of the weights: probabilities and distances are made
of them.
"""

from __future__ import annotations

from torch import Tensor, nn

from emosym.affect.scales import PUBLIC


def mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    """Return Linear-ReLU-Linear. Ref: EmoSym, model (docs/papers.md)."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


class EmotionHead(nn.Module):
    """h_emo [B, D] -> label logits [B, Y]."""

    def __init__(self, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.net = mlp(width, hidden, classes)

    def forward(self, h_emo: Tensor) -> Tensor:
        """Return logits [B, Y] in float32."""
        return self.net(h_emo).float()


class AffectHead(nn.Module):
    """h_emo [B, D] -> (valence, arousal) [B, 2] inside `scales.PUBLIC`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = mlp(width, hidden, 2)

    def forward(self, h_emo: Tensor) -> Tensor:
        """Return valence and arousal in float32, each in (-3, 3)."""
        return PUBLIC.high * (self.net(h_emo).float() / PUBLIC.high).tanh()
