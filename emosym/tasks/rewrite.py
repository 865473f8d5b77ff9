"""Task `rewrite`: a prompt with suggestions worked in, and with all of its content.

Its questions are built in `data_tools.affectworld.critique`, for the reason given in
`emosym.tasks.criticise`. Ref: EmoFeedback² (arXiv 2511.19982), textual feedback.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from emosym.tasks import metrics
from emosym.tasks.base import ANSWER_FORM, Answered, Measure, Task, label_value

KEY = "prompt"
FUNCTION_WORDS = frozenset(
    {"a", "an", "and", "are", "as", "at", "by", "for", "from", "in", "into", "is", "it", "its"}
    | {"of", "on", "or", "over", "the", "their", "to", "under", "with"}
)
"""Words of a prompt without content of their own."""


def rewrite_prompt(content: str, prompt: str, suggestions: Sequence[str]) -> str:
    """Return the question for a new prompt with the suggestions and with all of the content."""
    return (
        f"Write the prompt anew. It still shows {content}. It says {', '.join(suggestions)} in"
        f" place of other light. It was: {prompt}. " + ANSWER_FORM.format("prompt")
    )


def lost_content(content: str, prompt: str) -> list[str]:
    """Return the words of `content`, except `FUNCTION_WORDS`, that a prompt does not contain."""
    ignored = set(_words(prompt)) | FUNCTION_WORDS
    return [word for word in dict.fromkeys(_words(content)) if word not in ignored]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def _measure(answered: Answered) -> dict[str, Measure]:
    """Return the shares of prompts equal to the reference, and with all its content words."""
    pairs = [
        (label_value(a.values.get(KEY)) or "", label_value(q.truth[KEY]) or "")
        for q, a in answered
        if KEY in q.truth
    ]
    exact = [float(answer == reference) for answer, reference in pairs]
    kept = [float(not lost_content(reference, answer)) for answer, reference in pairs]
    return {"exact": (metrics.mean, np.array(exact)), "kept": (metrics.mean, np.array(kept))}


REWRITE = Task(
    name="rewrite",
    title="rewritten prompt",
    free_text=KEY,
    measure=_measure,
    metrics={
        "exact": ("prompts as the reference", "higher"),
        "kept": ("prompts with all words of the reference", "higher"),
    },
)
