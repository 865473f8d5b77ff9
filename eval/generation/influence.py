"""What a generated image follows: one source of its condition is exchanged at a time.

Each held-out image gives the decoder a condition: the states that the understander reads from it,
its true valence and arousal, and its prompt. The same noise is drawn with one of them taken from
another image. A source that the decoder uses changes the picture, and what is seen in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from operator import itemgetter

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from emosym.affect.correlation import pearson
from emosym.affect.scales import PUBLIC, Affect
from emosym.console.progress import progress
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError
from emosym.inference.continuity import small_pixels
from emosym.inference.pipeline import EmoSymPipeline
from emosym.inference.pixels import to_image
from emosym.inference.recognition import questions
from emosym.inference.sweep import axis_values
from emosym.interfaces import Oracle, Recogniser
from emosym.models.emotion_space import EmotionSpace
from emosym.models.generator import Condition
from emosym.pictures.loading import load_image
from emosym.randomness import Draws
from emosym.records import Sample
from emosym.tasks import metrics
from eval.generation.attributes import Attributes, agreement

EXCHANGES: Mapping[str, tuple[str, ...]] = {
    "nothing": (),
    "reasoning tokens h_ctx": ("h_ctx",),
    "emotion state h_emo": ("h_emo",),
    "both states": ("h_ctx", "h_emo"),
    "wanted valence and arousal": ("affect",),
    "prompt": ("text",),
}
"""Title of a row -> the inputs that come from another image."""
ALONE = "the state alone"
"""Row without a prompt, and without valence and arousal."""
SPACE = "the emotion space alone"
"""The same, with states sampled from the emotion space for the image's label."""
NEAR = 0.3
"""Images whose valence and arousal differ by no more than this are exchanged to find chance."""

Read = Callable[[Sequence[Image.Image]], Attributes]
"""Images -> the attributes that are seen in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What becomes of the images when one source of their condition is exchanged."""

    exchanged: str
    change: float | None
    """Mean RMS distance to the picture with nothing exchanged, pixels in [0, 1]."""
    label: float
    """Share of pictures in which the judge sees the label of the image itself."""
    r_valence: float | None
    """Correlation of the judged valence with the image's own."""
    r_arousal: float | None
    agreement: Mapping[str, float]
    """Attribute -> share of pictures that agree with the image itself."""
    above_chance: Mapping[str, float]
    """Attribute -> that share, less the share that agrees with another image of nearly the same
    valence and arousal (`NEAR`)."""
    intervals: Mapping[str, tuple[float, float] | None]
    """95 % bootstrap intervals of `label` and of each `above_chance`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InfluenceScores:
    """The rows, and what valence and arousal do alone."""

    images: int
    rows: tuple[Row, ...]
    plane_r_valence: float | None
    """Correlation of the oracle's mean valence with the wanted one over the 25 points of the plane,
    with the states and prompts of images. None without an oracle."""
    plane_r_arousal: float | None

    def to_dict(self) -> dict[str, object]:
        """Return plain data."""
        return asdict(self)


def evaluate_influence(
    pipeline: EmoSymPipeline,
    samples: Sequence[Sample],
    *,
    judge: Recogniser,
    read: Read | None = None,
    oracle: Oracle | None = None,
    subject_of: Callable[[Sample], str | None] = lambda sample: None,
    plane_images: int = 12,
    guidance_scale: Scale | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    resamples: int = 500,
) -> InfluenceScores:
    """Draw held-out images again, with one source of the condition exchanged at a time.

    Args:
        pipeline: the model under test.
        samples: held-out images with a label, valence and arousal, and a prompt.
        judge: recognises label, valence and arousal; not trained with the model under test.
        read: sees attributes in images; None compares none.
        oracle: true affect from pixels, for images with a subject.
        subject_of: the subject of an image for the oracle.
        plane_images: images whose state and prompt are drawn at each of 25 points.
        guidance_scale: of sampling; default: the model's.
        num_inference_steps: of sampling; default: the model's.
        seed: of the noise, the exchange and the intervals.
        resamples: of the bootstrap.

    Raises:
        UserError: fewer than two images, or one without a label, valence or arousal.
    """
    images = _load(samples)
    draw = _Drawing(pipeline, guidance_scale, num_inference_steps, seed)
    condition = draw.condition(images, samples)
    order = _derangement(len(samples), seed)
    seen = _Seen(samples, images, judge, read)
    drawn: dict[str, list[Image.Image]] = {}
    for title, inputs in EXCHANGES.items():
        drawn[title] = draw(condition.exchanged(inputs, order), title)
    state = _state_alone(condition)
    drawn[ALONE] = draw(state, ALONE)
    space = pipeline.model.space
    if space is not None:
        labels = [sample.emotion or "" for sample in samples]
        drawn[SPACE] = draw(_sampled(space, state, labels, seed), SPACE)
    own = small_pixels(drawn["nothing"])
    rows = tuple(
        seen.row(title, pictures, own if title in EXCHANGES else None, seed, resamples)
        for title, pictures in drawn.items()
    )
    r_valence = r_arousal = None
    if oracle is not None:
        r_valence, r_arousal = _plane(draw, condition, samples[:plane_images], oracle, subject_of)
    return InfluenceScores(
        images=len(samples), rows=rows, plane_r_valence=r_valence, plane_r_arousal=r_arousal
    )


def evaluate_state_alone(
    pipeline: EmoSymPipeline,
    samples: Sequence[Sample],
    *,
    judge: Recogniser,
    read: Read | None = None,
    guidance_scale: Scale | None = None,
    num_inference_steps: int | None = None,
    seed: int = 0,
    resamples: int = 500,
) -> Row:
    """Draw held-out images again from their states alone: the row `ALONE` of `evaluate_influence`.

    Arguments and errors as there.
    """
    images = _load(samples)
    draw = _Drawing(pipeline, guidance_scale, num_inference_steps, seed)
    pictures = draw(_state_alone(draw.condition(images, samples)), ALONE)
    return _Seen(samples, images, judge, read).row(ALONE, pictures, None, seed, resamples)


def _load(samples: Sequence[Sample]) -> list[Image.Image]:
    """Return the images of samples; raise UserError as `evaluate_influence`."""
    if len(samples) < 2 or any(s.emotion is None or s.affect is None for s in samples):
        raise UserError(
            "images to exchange",
            got=f"{len(samples)} images",
            expected="at least two, each with a label, valence and arousal",
        )
    return [load_image(sample.image) for sample in samples]


@dataclass(frozen=True, slots=True)
class _Drawing:
    """Draws conditions, image i always from the same noise."""

    pipeline: EmoSymPipeline
    guidance_scale: Scale | None
    num_inference_steps: int | None
    seed: int

    def condition(self, images: Sequence[Image.Image], samples: Sequence[Sample]) -> Condition:
        model, size = self.pipeline.model, self.pipeline.batch_size
        parts = []
        for start in range(0, len(images), size):
            output = model.read(questions(model, images[start : start + size]))
            parts.append((output.h_ctx, output.h_emo))
        h_ctx, h_emo = (torch.cat(each) for each in zip(*parts, strict=True))
        affect = torch.tensor([_affect(sample).coordinates for sample in samples])
        prompts = [sample.prompt or "" for sample in samples]
        with torch.no_grad():
            return model.condition_of(h_ctx, h_emo, prompts, affect.to(model.device))

    @torch.no_grad()
    def __call__(
        self, condition: Condition, title: str, places: Sequence[int] | None = None
    ) -> list[Image.Image]:
        """Return the images of a condition; row i has the noise of place i, or of `places[i]`."""
        model, size = self.pipeline.model, self.pipeline.batch_size
        count = len(condition.h_emo)
        noise = torch.stack(
            [
                Draws("influence", self.seed, place).normal(*model.autoencoder.latent_shape)
                for place in (range(count) if places is None else places)
            ]
        )
        drawn: list[Image.Image] = []
        with progress(f"drawing, exchanged: {title}", count) as show:
            for start in range(0, count, size):
                rows = slice(start, start + size)
                pixels = model.generate(
                    noise[rows].to(model.device),
                    condition.map(itemgetter(rows)),
                    num_inference_steps=self.num_inference_steps,
                    guidance_scale=self.guidance_scale,
                )
                drawn += [to_image(image) for image in pixels]
                show(len(drawn), count)
        return drawn


class _Seen:
    """What is seen in pictures, compared with the images that their conditions came from."""

    def __init__(
        self,
        samples: Sequence[Sample],
        images: Sequence[Image.Image],
        judge: Recogniser,
        read: Read | None,
    ) -> None:
        self.labels = [sample.emotion for sample in samples]
        self.affect = np.array([_affect(sample).coordinates for sample in samples])
        self.judge = judge
        self.read = read
        self.attributes = None if read is None else read(images)
        close = (np.abs(self.affect[:, None] - self.affect[None]) <= NEAR).all(-1)
        np.fill_diagonal(close, False)
        self.pairs = np.argwhere(close)
        """[P, 2]: an image, and another one of nearly the same valence and arousal."""

    def row(
        self,
        title: str,
        pictures: Sequence[Image.Image],
        own: NDArray | None,
        seed: int,
        resamples: int,
    ) -> Row:
        """Return the row of pictures; `own` are those with nothing exchanged, [N, 64, 64, 3]."""
        judged = self.judge.recognise(pictures)[0]
        pairs = zip(judged, self.labels, strict=True)
        labels = np.array([one.emotion == label for one, label in pairs], dtype=float)
        found = np.array([one.affect.coordinates for one in judged])
        agreed, above = self._agreement(pictures)
        change = None
        if own is not None:
            squares = (small_pixels(pictures) - own) ** 2
            change = float(np.sqrt(squares.mean((1, 2, 3))).mean())
        return Row(
            exchanged=title,
            change=change,
            label=float(labels.mean()),
            r_valence=pearson(found[:, 0], self.affect[:, 0]),
            r_arousal=pearson(found[:, 1], self.affect[:, 1]),
            agreement={name: float(values.mean()) for name, values in agreed.items()},
            above_chance={name: float(values.mean()) for name, values in above.items()},
            intervals={
                name: metrics.bootstrap(metrics.mean, values, seed=seed, resamples=resamples)
                for name, values in {"label": labels, **above}.items()
            },
        )

    def _agreement(
        self, pictures: Sequence[Image.Image]
    ) -> tuple[dict[str, NDArray], dict[str, NDArray]]:
        """Return whether each picture agrees with its image, and by how much that is above chance.

        Attribute -> [N], and attribute -> [M] for the M images that have a neighbour.
        """
        if self.read is None or self.attributes is None:
            return {}, {}
        read = self.read(pictures)
        agreed = {n: same.astype(float) for n, same in agreement(read, self.attributes).items()}
        rows, others = self.pairs.T
        if not len(rows):
            return agreed, {}
        chance = agreement(read.rows(rows), self.attributes.rows(others))
        counts = np.bincount(rows, minlength=len(pictures))
        some = counts > 0
        return agreed, {
            name: agreed[name][some]
            - np.bincount(rows, weights=same, minlength=len(pictures))[some] / counts[some]
            for name, same in chance.items()
        }


def _affect(sample: Sample) -> Affect:
    affect = sample.affect
    if affect is None:
        raise ValueError(sample.id)
    return affect


def _derangement(count: int, seed: int) -> Tensor:
    """Return a permutation without a fixed point: a random order, each taking the next one's."""
    order = Draws("exchange", seed).permutation(count)
    exchanged = torch.empty_like(order)
    exchanged[order] = order.roll(-1)
    return exchanged


def _state_alone(condition: Condition) -> Condition:
    """Return the condition without a prompt, and without valence and arousal."""
    return replace(
        condition,
        text=condition.unconditional_text,
        affect=torch.full_like(condition.affect, math.nan),
    )


def _sampled(
    space: EmotionSpace, condition: Condition, labels: Sequence[str], seed: int
) -> Condition:
    """Return the condition with states of the emotion space, one for each label."""
    states = torch.cat([space.sample({label: 1.0}, [seed + i]) for i, label in enumerate(labels)])
    states = states.to(condition.h_emo)
    return replace(condition, h_emo=states[:, 0], h_ctx=states[:, 1:])


def _plane(
    draw: _Drawing,
    condition: Condition,
    samples: Sequence[Sample],
    oracle: Oracle,
    subject_of: Callable[[Sample], str | None],
) -> tuple[float | None, float | None]:
    """Return r of the wanted and the oracle's valence, and arousal, over 25 points."""
    rows = [i for i, sample in enumerate(samples) if subject_of(sample) is not None]
    values = axis_values(5)
    points = [(valence, arousal) for valence in values for arousal in values]
    places = [i for _ in points for i in rows]
    at_points = condition.map(lambda tensor: tensor[torch.tensor(places)])
    wanted = torch.tensor([point for point in points for _ in rows])
    pictures = draw(
        replace(at_points, affect=wanted.to(condition.affect)), "25 points of the plane", places
    )
    seen = np.array(
        [
            oracle(picture, subject_of(samples[i]) or "").to(PUBLIC).coordinates
            for picture, i in zip(pictures, places, strict=True)
        ]
    ).reshape(len(points), len(rows), 2)
    means, targets = seen.mean(1), np.array(points)
    return pearson(means[:, 0], targets[:, 0]), pearson(means[:, 1], targets[:, 1])
