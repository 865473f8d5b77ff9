"""The instruction that conditions image generation."""

from __future__ import annotations

from emosym.records import ImageRequest


def imagine_prompt(request: ImageRequest) -> str:
    """Return the instruction to imagine an image with some content and emotion."""
    sentences = ["Imagine an image."]
    if request.prompt:
        sentences.append(f"It shows {request.prompt}.")
    if request.emotion is not None:
        sentences.append(f"Emotion: {request.emotion}.")
    if request.affect is not None:
        valence, arousal = request.affect.coordinates
        sentences.append(f"Valence: {valence:.1f}; Arousal: {arousal:.1f}.")
    return " ".join(sentences)
