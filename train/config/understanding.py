"""Sections of the phases that train the understander."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from emosym.errors import UserError
from train.config.ranges import positive, share


@dataclass(kw_only=True, slots=True)
class CompressConfig:
    """Emotional reasoning knowledge compression. Ref: EmoSym §2.4."""

    batch_size: int = 32
    """Images a step."""
    label_weight: float = 0.5
    """Cross-entropy on the label."""
    knowledge_weight: float = 0.5
    """InfoNCE of the reasoning tokens against the knowledge text."""
    affect_weight: float = 1.0
    """Smooth L1 on valence and arousal (ours; 0 as published)."""
    language_weight: float = 0.0
    """Language loss on the reference answer (ours; 0 as published)."""
    distil_weight: float = 0.0
    """Self-distillation of the state at [EMO] (ours, after CODI; 1 there): it shall be what it is
    after the knowledge in words. The reading of the words learns label, valence and arousal too, at
    the weights above."""
    reconstruct_weight: float = 0.0
    """Language loss on the knowledge text, told from the reasoning states alone (ours, after ICAE;
    try 0.1). The language model of the start tells it, frozen, so that only the states can learn.
    """
    knowledge_encoder: str | None = None
    """Encodes the knowledge texts: `decoder` (its own text encoder), `sentence` (all-MiniLM-L6-v2
    of the extra `text`), or the folder or hub id of a CLIP text tower. Null keeps the one that the
    model's knowledge head was made for; another one gets a new head."""

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size)
        share(
            math.inf,
            label_weight=self.label_weight,
            knowledge_weight=self.knowledge_weight,
            affect_weight=self.affect_weight,
            language_weight=self.language_weight,
            distil_weight=self.distil_weight,
            reconstruct_weight=self.reconstruct_weight,
        )


@dataclass(kw_only=True, slots=True)
class InstructConfig:
    """Instruction tuning. Ref: EEmo-Logic §3.5, stage 1."""

    batch_size: int = 32
    """Questions a step."""

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size)


@dataclass(kw_only=True, slots=True)
class VerifyPosteriorConfig:
    """RL with the differentiable class-posterior reward. Ref: EmoSym §2.5."""

    batch_size: int = 32
    """Images a step."""
    affect_weight: float = 1.0
    """Smooth L1 on valence and arousal (ours; 0 as published)."""
    hard_negatives: float = 0.0
    """Largest share of a batch, at most 0.5, that are real images of the bank with nearly the
    prompt of another image of it, and another emotion."""

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size)
        share(math.inf, affect_weight=self.affect_weight)
        share(0.5, hard_negatives=self.hard_negatives)


@dataclass(kw_only=True, slots=True)
class VerifyGrpoConfig:
    """GRPO on sampled answers. Ref: EEmo-Logic §3.5, EmoFeedback² §1.3."""

    batch_size: int = 8
    """Prompts (images) a step."""
    group: int = 8
    """G, answers a prompt."""
    answer_tokens: int = 64
    """Longest answer."""
    temperature: float = 1.0
    """Of sampling."""
    loss: Literal["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo", "sapo"] = "dapo"
    """Policy loss, see `emosym.rl.policy_loss`."""
    clip: float = 0.2
    """The ratio is held above 1 - clip."""
    clip_high: float = 0.28
    """The ratio is held below 1 + clip_high; as `clip` where nothing else was published."""
    beta: float = 0.04
    """Weight of the KL to the reference; 0 does not read with the reference."""
    spread: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the deviation in the group, in the batch, or nothing."""
    rewards_apart: bool = False
    """Normalise each reward by itself before they are summed (GDPO)."""
    mask_truncated: bool = False
    """An answer that was cut at `answer_tokens` teaches nothing."""
    rewards: dict[str, float] = field(
        default_factory=lambda: {"format": 1.0, "emotion": 1.0, "affect_threshold": 1.0}
    )
    """Reward -> weight; 0 switches it off."""

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size, answer_tokens=self.answer_tokens)
        positive(temperature=self.temperature)
        share(math.inf, clip_high=self.clip_high, beta=self.beta)
        share(clip=self.clip)
        if self.group < 2:
            raise UserError("group must be at least 2", got=self.group)
        if not any(self.rewards.values()):
            raise UserError("rewards are all switched off", fix="give at least one a weight")
