"""The corpus of a base model's tokenizer: texts of AffectWorld, requests and answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from data_tools.affectworld.text import corpus
from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.models.imagine import imagine_prompt
from emosym.records import ImageRequest, Sample
from emosym.tasks.affect import AFFECT_PROMPT, affect_reply


def base_texts(count: int, seed: int) -> Iterator[str]:
    """Yield `count` world texts, each followed by a request, a question and a reference answer."""
    rng = random.Random(f"base texts {seed}")
    for text in corpus(count, seed):
        emotion = rng.choice(MIKELS8)
        valence, arousal = rng.uniform(-3, 3), rng.uniform(-3, 3)
        request = ImageRequest(prompt=text, emotion=emotion, affect=Affect(valence, arousal))
        yield imagine_prompt(request)
        yield f"user\n{AFFECT_PROMPT}\nassistant\n"
        sample = Sample(
            id="",
            image=Path(),
            split="train",
            emotion=emotion,
            valence=valence,
            arousal=arousal,
            knowledge=text,
        )
        yield affect_reply(sample)
