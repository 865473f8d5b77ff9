"""What is said to the model, and how it answers."""

from __future__ import annotations

from emosym.records import ImageRequest, Sample

UNDERSTAND = "Which emotion does this image evoke? Give valence and arousal from -3 to 3."
"""The question that goes with an image."""


def imagine(request: ImageRequest) -> str:
    """Return the instruction that asks for an image of some content and emotion."""
    parts = ["Imagine an image."]
    if request.prompt:
        parts.append(f"It shows {request.prompt}.")
    if request.emotion is not None:
        parts.append(f"Emotion: {request.emotion}.")
    if request.valence is not None and request.arousal is not None:
        parts.append(f"Valence: {request.valence:.1f}; Arousal: {request.arousal:.1f}.")
    return " ".join(parts)


def answer(sample: Sample) -> str:
    """Return the reference answer for an image: its knowledge, then what of its affect is known.

    Ref: EEmo-Logic (arXiv 2602.01173) answer contract `<think></think><answer>Key: value</answer>`.
    """
    facts = []
    if sample.emotion is not None:
        facts.append(f"Emotion: {sample.emotion}")
    if sample.valence is not None:
        facts.append(f"Valence: {sample.valence:.1f}")
    if sample.arousal is not None:
        facts.append(f"Arousal: {sample.arousal:.1f}")
    return f"<think>{sample.knowledge or ''}</think><answer>{'; '.join(facts)}</answer>"
