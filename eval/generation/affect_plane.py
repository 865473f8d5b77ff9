"""Evaluation of a model at every point of a grid on the valence-arousal plane.

A request is a prompt and a point, without a label. Unlike `eval.generation.measure`, which requests
what held-out pictures evoke, it requests the same 25 points for every prompt, also those that no
picture of AffectWorld reaches; `eval.generation.attainable` gives the error that this causes.

Ref: the grid, V-Error and A-Error, arXiv 2501.05710 (EmotiCrafter), section 4.2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emosym.affect.scales import PUBLIC, Affect
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError
from emosym.inference.continuity import Continuity, mean_continuity, small_pixels
from emosym.inference.sweep import AXES, Axis, Sweep, axis_values
from emosym.interfaces import EmotionModel, Oracle, Recogniser
from emosym.records import ImageRequest, Understanding
from emosym.rl.image_statistics import pairwise_rms
from emosym.tasks import metrics
from eval.generation.continuity import ContinuityScores, continuity_scores
from eval.generation.requests import EvalRequest

VALUES = axis_values(5)
"""Of each axis: -3, -1.5, 0, 1.5, 3."""

Attainable = Callable[[str, Affect], tuple[float, float]]
"""Subject, target -> least attainable (|ΔV|, |ΔA|), as `eval.generation.attainable`."""
Classify = Callable[[Sequence[Image.Image]], Sequence[str]]
"""Images -> the subject of each, as `eval.generation.subject`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneScores:
    """Scores over prompts. V/A in `PUBLIC` units; None means undefined or not measured."""

    prompts: int
    seeds: int
    """Images of a prompt at each of the 25 points."""
    oracle_v_error: float | None
    """Mean |oracle − requested|."""
    oracle_a_error: float | None
    oracle_error: float | None
    """Sum of both; its lower bound is `floor_error`."""
    floor_v_error: float | None
    """The part of valence in `floor_error`."""
    floor_a_error: float | None
    floor_error: float | None
    """The least error of pictures of the same subjects in AffectWorld's light."""
    judge_v_error: float | None
    judge_a_error: float | None
    judge_error: float | None
    subject_accuracy: float | None
    """Share of images in which the classifier recognises the subject of the prompt."""
    seed_diversity: float | None
    """Mean RMS distance of two seeds' images of one prompt at one point, [0, 1]."""
    prompt_diversity: float | None
    """Mean RMS distance of two prompts' images at one point, from different noise, [0, 1]."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % bootstrap interval of each metric over the prompts."""
    continuity: dict[Axis, ContinuityScores]
    """Along lines of the grid on which only one axis changes."""
    cells: tuple[dict[str, float], ...]
    """For each point `valence`, `arousal`, and the mean of every metric that is defined there."""

    def to_dict(self) -> dict[str, object]:
        """Return the scores as plain data for a report."""
        plain = asdict(replace(self, continuity={}))
        return plain | {"continuity": {a: one.to_dict() for a, one in self.continuity.items()}}


MEASURED = (
    "oracle_v_error",
    "oracle_a_error",
    "oracle_error",
    "floor_v_error",
    "floor_a_error",
    "floor_error",
    "judge_v_error",
    "judge_a_error",
    "judge_error",
    "subject_accuracy",
    "seed_diversity",
    "prompt_diversity",
)


def evaluate_plane(
    model: EmotionModel,
    requests: Sequence[EvalRequest],
    *,
    judge: Recogniser,
    oracle: Oracle | None = None,
    attainable: Attainable | None = None,
    classify: Classify | None = None,
    seeds: Sequence[int] = (0,),
    guidance_scale: Scale | None = None,
    num_inference_steps: int | None = None,
    values: Sequence[float] = VALUES,
    batch: int = 4,
    resamples: int = 500,
    progress: Callable[[int, int], None] | None = None,
) -> PlaneScores:
    """Generate every prompt at every point of `values` × `values` with each seed, and score it.

    The noise of a prompt and seed is the same at all points and depends on the seed and the
    prompt's place alone. Distances between images are taken at 64 × 64 pixels.

    Args:
        model: the model under test.
        requests: their prompts and subjects; label and affect are ignored.
        judge: recognises V and A; its embeddings measure continuity.
        oracle: true affect from pixels, for requests with a subject.
        attainable: lower bound of the oracle's error.
        classify: recognises subjects, for requests with a subject.
        seeds: one image of every prompt and point for each.
        guidance_scale: of sampling; default: the model's.
        num_inference_steps: of sampling; default: the model's.
        values: of valence, and of arousal.
        batch: prompts in one call of `model`.
        resamples: of the bootstrap.
        progress: called with (done, all) prompts.

    Raises:
        UserError: no request, no seed or a repeated seed.
    """
    if not requests:
        raise UserError("no request to evaluate", got="0 requests", expected="at least one")
    if not seeds or len({*seeds}) < len(seeds):
        raise UserError("seeds of the images", got=[*seeds], expected="at least one, none twice")
    axis = tuple(sorted(values))
    plane = Sweep(valences=axis, arousals=axis)
    by_metric: dict[str, list[NDArray]] = {}
    lines: dict[Axis, list[Continuity]] = {name: [] for name in AXES}
    pixels: list[NDArray] = []
    generated = _generate(
        model, judge, requests, plane, seeds, batch, guidance_scale, num_inference_steps
    )
    for wanted, by_seed in zip(requests, generated, strict=True):
        measured = _measure(wanted.subject, plane, by_seed, oracle, attainable, classify)
        for name, cells in measured.items():
            by_metric.setdefault(name, []).append(cells)
        each = [plane.continuity(one.judged, one.pixels, one.embeddings) for one in by_seed]
        for name in AXES:
            lines[name].append(mean_continuity([one[name] for one in each]))
        pixels.append(np.stack([one.pixels for one in by_seed]))
        if progress is not None:
            progress(len(pixels), len(requests))
    by_prompt = {name: np.array(cells).mean(1) for name, cells in by_metric.items()}
    by_prompt["prompt_diversity"] = _distances(pixels)
    by_prompt = {name: by_prompt.get(name, np.empty(0)) for name in MEASURED}
    return PlaneScores(
        prompts=len(requests),
        seeds=len(seeds),
        **{name: metrics.mean(each) for name, each in by_prompt.items()},
        intervals={
            name: metrics.bootstrap(metrics.mean, each, seed=seeds[0], resamples=resamples)
            for name, each in by_prompt.items()
        },
        continuity={
            name: continuity_scores(each, seed=seeds[0], resamples=resamples)
            for name, each in lines.items()
        },
        cells=tuple(
            {"valence": point.valence, "arousal": point.arousal}
            | {
                name: float(np.mean([one[place] for one in cells]))
                for name, cells in by_metric.items()
            }
            for place, point in enumerate(plane.points)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Images:
    """The images of one prompt and seed at every point, P images."""

    images: list[Image.Image]
    judged: list[Understanding]
    pixels: NDArray
    """[P, 64, 64, 3]."""
    embeddings: NDArray
    """[P, D]."""


def _generate(
    model: EmotionModel,
    judge: Recogniser,
    requests: Sequence[EvalRequest],
    plane: Sweep,
    seeds: Sequence[int],
    batch: int,
    guidance_scale: Scale | None,
    num_inference_steps: int | None,
) -> Iterator[list[_Images]]:
    """Yield the images of each request, one `_Images` for each seed."""
    points = len(plane.points)
    for start in range(0, len(requests), batch):
        chunk = [
            (plane.requests(ImageRequest(prompt=one.request.prompt)), _noise_seed(seed, place))
            for place, one in enumerate(requests[start : start + batch], start)
            for seed in seeds
        ]
        images = model.generate(
            [request for requests_at_points, _ in chunk for request in requests_at_points],
            seed=[noise for _, noise in chunk for _ in range(points)],
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
        )
        judged, embeddings = judge.recognise(images)
        pixels = small_pixels(images)
        by_seed = [
            _Images(images[at], judged[at], pixels[at], embeddings[at])
            for at in (slice(first, first + points) for first in range(0, len(images), points))
        ]
        yield from (by_seed[at : at + len(seeds)] for at in range(0, len(by_seed), len(seeds)))


def _measure(
    subject: str | None,
    plane: Sweep,
    by_seed: Sequence[_Images],
    oracle: Oracle | None,
    attainable: Attainable | None,
    classify: Classify | None,
) -> dict[str, NDArray]:
    """Return every metric that is defined for one prompt at each point, [P], a mean over seeds."""
    measured: dict[str, NDArray] = {}
    affects = {"judge": [[each.affect for each in one.judged] for one in by_seed]}
    if subject is not None and oracle is not None:
        affects["oracle"] = [
            [oracle(image, subject).to(PUBLIC) for image in one.images] for one in by_seed
        ]
    errors = {source: _errors(each, plane) for source, each in affects.items()}
    if subject is not None and attainable is not None:
        errors["floor"] = np.array([attainable(subject, point) for point in plane.points])
    for source, each in errors.items():
        measured |= {f"{source}_v_error": each[:, 0], f"{source}_a_error": each[:, 1]}
        measured[f"{source}_error"] = each.sum(1)
    if subject is not None and classify is not None:
        right = [[name == subject for name in classify(one.images)] for one in by_seed]
        measured["subject_accuracy"] = np.mean(right, axis=0)
    if len(by_seed) > 1:
        places = range(len(plane.points))
        at_points = [np.stack([one.pixels[place] for one in by_seed]) for place in places]
        measured["seed_diversity"] = np.array([pairwise_rms(images) for images in at_points])
    return measured


def _errors(by_seed: Sequence[Sequence[Affect]], plane: Sweep) -> NDArray:
    """Return |ΔV| and |ΔA| to each point, [P, 2], a mean over seeds."""
    errors = [
        [affect.errors(point) for affect, point in zip(affects, plane.points, strict=True)]
        for affects in by_seed
    ]
    return np.array(errors).mean(0)


def _distances(pixels: Sequence[NDArray]) -> NDArray:
    """Return the mean RMS distance of each prompt to the others, [N]; empty for one prompt.

    Images of the same point and the same place in `seeds` are compared.
    """
    if len(pixels) < 2:
        return np.empty(0)
    apart = np.zeros((len(pixels), len(pixels)))
    for one, two in itertools.combinations(range(len(pixels)), 2):
        squares = ((pixels[one] - pixels[two]) ** 2).mean((2, 3, 4))
        apart[one, two] = apart[two, one] = np.sqrt(squares).mean()
    return apart.sum(1) / (len(pixels) - 1)


def _noise_seed(seed: int, place: int) -> int:
    return int(np.random.SeedSequence([seed, place]).generate_state(1)[0])
