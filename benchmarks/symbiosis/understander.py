"""Part `understander`: does what the understander has learned help to draw from its state?

The understander learns in two lessons, and is frozen while the generator learns from its states.
All arms but the first take the same number of optimizer steps in each lesson, at the same learning
rate. The generator of every arm starts from the same weights and sees the same images, noise and
times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.results import Row
from benchmarks.symbiosis.scores import DRAWING, UNDERSTANDING, drawn, understood
from benchmarks.symbiosis.study import SUPERVISED, UNMEASURED, Part, Study, stages

Lesson = tuple[Mapping[str, int], tuple[str, ...]]
"""Cycle of phases, and overrides of the preset."""
LESSONS: dict[str, Lesson] = {
    "supervised": ({"compress": 1}, SUPERVISED),
    "knowledge": ({"compress": 1}, ()),
    "rl": ({"verify_posterior": 1, "verify_grpo": 1}, ()),
}
"""What an understander can learn: label, valence and arousal; these and the knowledge text (InfoNCE
and language loss); EmoSym's step 2 and GRPO on answers."""
ARMS: dict[str, tuple[str, ...]] = {
    "random, frozen": (),
    "supervised": ("supervised", "supervised"),
    "+ knowledge": ("knowledge", "knowledge"),
    "+ knowledge, RL": ("knowledge", "rl"),
}
"""Arm -> its lessons."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderstanderPart(Part):
    """See the module."""

    lessons: tuple[tuple[int, float], ...] = ((300, 1e-3), (100, 2e-4))
    """Steps and learning rate of each lesson."""
    generate_steps: int = 500
    """Steps of the generator."""

    name = "understander"
    question = "Does what the understander learns help to draw from its state?"
    arms = tuple(ARMS)
    metrics = DRAWING | UNDERSTANDING

    def measure(self, study: Study, arm: str, seed: int) -> Row:
        """Train understander and generator of an arm; return `DRAWING` and `UNDERSTANDING`."""
        model, learned = study.start(seed), []
        for lesson, (steps, rate) in zip(ARMS[arm], self.lessons, strict=False):
            learned.append(lesson)
            cycle, overrides = LESSONS[lesson]
            trained = study.train(
                "-".join(learned),
                seed,
                model=model,
                overrides=[
                    stages((steps, cycle)),
                    f"engine.understander.learning_rate={rate}",
                    *UNMEASURED,
                    *overrides,
                ],
            )
            model = trained.model
        drawing = study.train(
            "-".join([*learned, "drawing"]),
            seed,
            model=model,
            overrides=[stages((self.generate_steps, {"generate": 1}))],
        )
        return drawn(study, drawing, seed) | understood(drawing)
