"""The emotion space that a run leaves in its model."""

from __future__ import annotations

from emosym.inference.emotion_space_fitting import choose_samples, fit_emotion_space
from emosym.models.emotion_space import EmotionSpace
from train.phases.base import PhaseContext


def space_of(context: PhaseContext) -> EmotionSpace | None:
    """Return the emotion space of a run's model as it is now, in evaluation mode.

    One is fitted where the generator trained, and anew where the model had one and its states may
    have moved. It is None where no training image has an emotion.

    Raises:
        UserError: as `fit_emotion_space`.
    """
    model = context.model
    trained = context.parts["generator"] is not model.generator
    moved = context.parts["understander"] is not model.understander
    if not trained and not (moved and model.space is not None):
        return model.space
    samples = choose_samples(context.training_set.samples)
    if not samples:
        return None
    return fit_emotion_space(
        model, samples, lambda sample: context.training_set.image(sample.image)
    )
