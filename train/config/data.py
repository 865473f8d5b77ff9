"""Where a run's material comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from emosym.errors import UserError
from train.config.ranges import positive, share


@dataclass(kw_only=True, slots=True)
class WorldConfig:
    """An AffectWorld drawn into the run folder."""

    count: int = 0
    """Images; 0 draws none."""
    seed: int = 0
    """Seed of the drawing."""

    def __post_init__(self) -> None:
        share(math.inf, count=self.count)
        share(2**63 - 1, seed=self.seed)


@dataclass(kw_only=True, slots=True)
class InstructionsConfig:
    """Files of questions with answers, of a layout that `data_tools.questions.eemodb` reads."""

    train: str | None = None
    """Questions to learn from."""
    test: str | None = None
    """Held-out questions."""
    images: str | None = None
    """Folder of the images that the files name."""

    def __post_init__(self) -> None:
        if (self.train or self.test) and not self.images:
            raise UserError("images is missing", fix="name the folder of the files' images")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where images come from (`path`, or a drawn `world`), and what is asked about them."""

    path: str | None = None
    """Manifest file, or folder of a known layout (see `emosym data`)."""
    world: WorldConfig = field(default_factory=WorldConfig)
    """Used when `path` is null."""
    tasks: list[str] = field(default_factory=lambda: ["affect"])
    """Questions made of the images' facts, each a task of `emosym.tasks.prompts.TASKS`, in equal
    shares; phases `instruct` and `verify_grpo` learn from them."""
    reasons: bool = True
    """Their reference answers first say the knowledge text, in <think></think>; else they think
    nothing. EEmo-Logic's first stage has answers alone."""
    instructions: InstructionsConfig = field(default_factory=InstructionsConfig)
    """More questions."""
    lexicon_spread: float | None = None
    """Give labelled images without valence and arousal those of their label's word, drawn with this
    share of the raters' deviation. Ref: EmoFeedback²; null gives none."""
    flip: bool = False
    """Mirror half of the training images (understanding only)."""
    crop: float = 1.0
    """Smallest side of a random training crop, as a share; 1 does not crop."""
    image_cache: int = 4096
    """Decoded images kept in memory."""

    def __post_init__(self) -> None:
        positive(crop=self.crop, image_cache=self.image_cache)
        if self.lexicon_spread is not None:
            share(lexicon_spread=self.lexicon_spread)
        share(crop=self.crop)
