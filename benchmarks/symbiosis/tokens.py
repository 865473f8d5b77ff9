"""Part `tokens`: how many reasoning tokens does drawing from the state need, with what knowledge?

Each arm trains an understander with K reasoning tokens from random weights, with or without the
knowledge text, then a generator on its frozen states. The generator of every arm starts from the
same weights and sees the same images, noise and times. With K = 0 the state is the emotion token
alone: the knowledge text is then learned by the language loss only, because InfoNCE needs reasoning
tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.results import Row
from benchmarks.symbiosis.scores import DRAWING, UNDERSTANDING, drawn, understood
from benchmarks.symbiosis.study import SUPERVISED, Part, Study, stages

TOKENS = (0, 1, 4, 8)
ARMS = {
    f"K = {tokens}{', knowledge' if knowledge else ''}": (tokens, knowledge)
    for knowledge in (False, True)
    for tokens in TOKENS
}
"""Arm -> its number of reasoning tokens, and whether it learns the knowledge text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensPart(Part):
    """See the module."""

    compress_steps: int = 250
    """Steps of the understander."""
    generate_steps: int = 250
    """Steps of the generator."""

    name = "tokens"
    question = "How many reasoning tokens does drawing from the state need?"
    arms = tuple(ARMS)
    metrics = DRAWING | UNDERSTANDING

    def measure(self, study: Study, arm: str, seed: int) -> Row:
        """Train an arm; return `DRAWING` and `UNDERSTANDING`."""
        tokens, knowledge = ARMS[arm]
        overrides = [
            f"reasoning_tokens={tokens}",
            stages((self.compress_steps, {"compress": 1}), (self.generate_steps, {"generate": 1})),
        ]
        if not knowledge:
            overrides += SUPERVISED
        elif not tokens:
            overrides.append("compress.knowledge_weight=0")
        trained = study.train(
            f"k{tokens}{'-knowledge' if knowledge else ''}",
            seed,
            model=study.start(seed),
            overrides=overrides,
        )
        return drawn(study, trained, seed) | understood(trained)
