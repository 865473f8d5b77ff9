"""How well a model hits every point of the valence-arousal plane, on one set of prompts.

The labels are left out: a prompt and a point are all that is asked. Unlike
`eval.generation.measure`, which asks for what held-out pictures evoke, it asks of every prompt the
same 25 points, also those that no picture of the world reaches; `eval.generation.attainable` says
how much of the error is the world's.

Ref: the grid, V-Error and A-Error, arXiv 2501.05710 (EmotiCrafter) §4.2.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emosym.affect.scales import PUBLIC, Affect
from emosym.errors import UserError
from emosym.inference.continuity import Continuity, mean_continuity, small_pixels
from emosym.inference.sweep import AXES, Axis, Sweep, axis_values
from emosym.interfaces import EmotionModel, Oracle, Recogniser
from emosym.records import ImageRequest, Understanding
from emosym.rl.image_statistics import pairwise_rms
from eval.generation.measure import EvalRequest
from eval.metrics import statistics as metrics
from eval.metrics.continuity import ContinuityScores, continuity_scores

VALUES = axis_values(5)
"""Of each axis: -3, -1.5, 0, 1.5, 3."""

Attainable = Callable[[str, float, float], tuple[float, float]]
"""Subject, valence, arousal -> the least error of each, as `eval.generation.attainable`."""
Classify = Callable[[Sequence[Image.Image]], Sequence[str]]
"""Images -> the subject that each shows, as `eval.generation.subject`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaneScores:
    """Scores over prompts. V/A in `affect.PUBLIC` units; None means undefined or not measured."""

    prompts: int
    seeds: int
    """Images of a prompt at each of the 25 points."""
    oracle_v_error: float | None
    """Mean |oracle − asked|."""
    oracle_a_error: float | None
    oracle_error: float | None
    """The two together; their floor is below."""
    floor_v_error: float | None
    """Valence's part of `floor_error`."""
    floor_a_error: float | None
    floor_error: float | None
    """The least that pictures of the same subjects in the world's light can have."""
    judge_v_error: float | None
    judge_a_error: float | None
    judge_error: float | None
    subject_accuracy: float | None
    """Share of images in which the classifier sees the subject that the prompt names."""
    seed_diversity: float | None
    """Mean RMS distance of two seeds' images of one prompt at one point, [0, 1]."""
    prompt_diversity: float | None
    """Mean RMS distance of two prompts' images at one point, with noise of their own, [0, 1]."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % bootstrap interval of each metric over the prompts."""
    continuity: dict[Axis, ContinuityScores]
    """Along lines of the grid on which nothing else differs."""
    cells: tuple[dict[str, float], ...]
    """Each point: `valence`, `arousal`, and the mean there of all that is measured at a point."""

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
    guidance: float | None = None,
    steps: int | None = None,
    values: Sequence[float] = VALUES,
    batch: int = 4,
    resamples: int = 500,
    progress: Callable[[int, int], None] | None = None,
) -> PlaneScores:
    """Draw every prompt at every point of `values` × `values`, with each seed, and score it all.

    The noise of a prompt and seed is the same at all points and depends on the seed and the
    prompt's place alone. Distances between images are taken at 64 × 64 pixels.

    Args:
        model: what draws.
        requests: of each its prompt and subject count; label and affect are left out.
        judge: what judges V and A; its embeddings measure continuity.
        oracle: the truth of pixels, for requests with a subject.
        attainable: what the oracle's error can be at the least.
        classify: what names the subject of an image, for requests with a subject.
        seeds: one image of every prompt and point each.
        guidance: of sampling; default: the model's.
        steps: of sampling; default: the model's.
        values: of valence, and of arousal.
        batch: prompts drawn in one call of `model`.
        resamples: of the bootstrap.
        progress: called with (done, all) prompts.

    Raises:
        UserError: no request, no seed or one twice.
    """
    if not requests:
        raise UserError("no request to evaluate", got="0 requests", expected="at least one")
    if not seeds or len({*seeds}) < len(seeds):
        raise UserError("seeds of the images", got=[*seeds], expected="at least one, none twice")
    axis = tuple(sorted(values))
    plane = Sweep(valences=axis, arousals=axis)
    found: dict[str, list[NDArray]] = {}
    lines: dict[Axis, list[Continuity]] = {name: [] for name in AXES}
    pixels: list[NDArray] = []
    drawn = _drawn(model, judge, requests, plane, seeds, batch, guidance, steps)
    for wanted, turns in zip(requests, drawn, strict=True):
        measured = _measured(wanted.subject, plane, turns, oracle, attainable, classify)
        for name, cells in measured.items():
            found.setdefault(name, []).append(cells)
        each = [plane.continuity(turn.judged, turn.pixels, turn.embeddings) for turn in turns]
        for name in AXES:
            lines[name].append(mean_continuity([one[name] for one in each]))
        pixels.append(np.stack([turn.pixels for turn in turns]))
        if progress is not None:
            progress(len(pixels), len(requests))
    values_of = {name: np.array(cells).mean(1) for name, cells in found.items()}
    values_of["prompt_diversity"] = _apart(pixels)
    values_of = {name: values_of.get(name, np.empty(0)) for name in MEASURED}
    return PlaneScores(
        prompts=len(requests),
        seeds=len(seeds),
        **{name: metrics.mean(each) for name, each in values_of.items()},
        intervals={
            name: metrics.bootstrap(metrics.mean, each, seed=seeds[0], resamples=resamples)
            for name, each in values_of.items()
        },
        continuity={
            name: continuity_scores(each, seed=seeds[0], resamples=resamples)
            for name, each in lines.items()
        },
        cells=tuple(
            {"valence": valence, "arousal": arousal}
            | {name: float(np.mean([one[place] for one in cells])) for name, cells in found.items()}
            for place, (valence, arousal) in enumerate(plane.points)
        ),
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    """One prompt with one seed at every point, P images."""

    images: list[Image.Image]
    judged: list[Understanding]
    pixels: NDArray
    """[P, 64, 64, 3]."""
    embeddings: NDArray
    """[P, D]."""


def _drawn(
    model: EmotionModel,
    judge: Recogniser,
    requests: Sequence[EvalRequest],
    plane: Sweep,
    seeds: Sequence[int],
    batch: int,
    guidance: float | None,
    steps: int | None,
) -> Iterator[list[_Turn]]:
    """Yield the turns of each request, one for each seed."""
    points = len(plane.points)
    for start in range(0, len(requests), batch):
        chunk = [
            (plane.requests(ImageRequest(prompt=one.request.prompt)), _noise_seed(seed, place))
            for place, one in enumerate(requests[start : start + batch], start)
            for seed in seeds
        ]
        images = model.generate(
            [request for asked, _ in chunk for request in asked],
            seed=[noise for _, noise in chunk for _ in range(points)],
            guidance_scale=guidance,
            num_inference_steps=steps,
        )
        judged, embeddings = judge.recognise(images)
        pixels = small_pixels(images)
        turns = [
            _Turn(images[at], judged[at], pixels[at], embeddings[at])
            for at in (slice(one, one + points) for one in range(0, len(images), points))
        ]
        yield from (turns[at : at + len(seeds)] for at in range(0, len(turns), len(seeds)))


def _measured(
    subject: str | None,
    plane: Sweep,
    turns: Sequence[_Turn],
    oracle: Oracle | None,
    attainable: Attainable | None,
    classify: Classify | None,
) -> dict[str, NDArray]:
    """Return what can be measured of one prompt at each point, [P], a mean over its seeds."""
    found: dict[str, NDArray] = {}
    seen = {"judge": [turn.judged for turn in turns]}
    if subject is not None and oracle is not None:
        seen["oracle"] = [[oracle(im, subject).to(PUBLIC) for im in t.images] for t in turns]
    errors = {who: _errors(views, plane) for who, views in seen.items()}
    if subject is not None and attainable is not None:
        errors["floor"] = np.array([attainable(subject, v, a) for v, a in plane.points])
    for who, each in errors.items():
        found |= {f"{who}_v_error": each[:, 0], f"{who}_a_error": each[:, 1]}
        found[f"{who}_error"] = each.sum(1)
    if subject is not None and classify is not None:
        named = [[one == subject for one in classify(turn.images)] for turn in turns]
        found["subject_accuracy"] = np.mean(named, axis=0)
    if len(turns) > 1:
        places = range(len(plane.points))
        same = [np.stack([turn.pixels[place] for turn in turns]) for place in places]
        found["seed_diversity"] = np.array([pairwise_rms(images) for images in same])
    return found


def _errors(views: Sequence[Sequence[Affect | Understanding]], plane: Sweep) -> NDArray:
    """Return |seen − asked| of valence and arousal at each point, [P, 2], a mean over seeds."""
    seen = np.array([[(one.valence, one.arousal) for one in view] for view in views])
    return np.abs(seen - np.array(plane.points)).mean(0)


def _apart(pixels: Sequence[NDArray]) -> NDArray:
    """Return of each prompt the mean RMS distance to the others, [N]; empty for one prompt.

    Like is compared with like: the same point, the same turn of the seeds.
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
