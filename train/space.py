"""What the model that a run saves knows of its training images: emotion space, appearance."""

from __future__ import annotations

from emosym.console.progress import progress
from emosym.inference.emotion_space_fitting import choose_samples, fit_emotion_space
from emosym.models.emotion_space import EmotionSpace
from emosym.models.training_images import TrainingImages
from train.phases.base import PhaseContext

MAX_IMAGES = 1000
"""Images whose appearance is measured."""


def space_of(context: PhaseContext) -> EmotionSpace | None:
    """Return the emotion space for the model of a run, which is in evaluation mode.

    It is fitted if the generator was trained, or if the model had one and the understander was
    trained; else it is the model's, if any. Without labelled training images it is None.

    Raises:
        UserError: as `fit_emotion_space`.
    """
    model = context.model
    generator_trained = context.parts["generator"] is not model.generator
    understander_trained = context.parts["understander"] is not model.understander
    if not generator_trained and not (understander_trained and model.space is not None):
        return model.space
    samples = choose_samples(context.training_set.samples)
    if not samples:
        return None
    with progress("fitting the emotion space to images", len(samples)) as show:
        return fit_emotion_space(
            model,
            samples,
            lambda sample: context.training_set.image(sample.image),
            show=lambda done: show(done, len(samples)),
        )


def training_images_of(context: PhaseContext) -> TrainingImages | None:
    """Return how the training images look, for the model of a run; as before if it only drew."""
    if context.parts["understander"] is context.model.understander:
        return context.model.training_images
    samples = [sample for sample in context.training_set.samples if sample.split == "train"]
    spread = samples[:: -(-len(samples) // MAX_IMAGES) or 1]
    return TrainingImages.fit(context.training_set.image(sample.image) for sample in spread)
