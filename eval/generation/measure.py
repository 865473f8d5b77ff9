"""Evaluation of generation: whether images evoke what was requested, and how diverse they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from emosym.affect.scales import PUBLIC, Affect
from emosym.diffusion.guidance import Scale
from emosym.errors import UserError
from emosym.inference.sheets import caption
from emosym.interfaces import EmotionModel, Oracle, Recogniser
from emosym.pictures.loading import load_image
from emosym.records import Understanding
from emosym.rl.image_statistics import pairwise_rms
from emosym.tasks import metrics
from eval.generation.requests import EvalRequest
from eval.scores import RESAMPLES, Items, Measured, score
from eval.share import ALONE, UNIT, Processes, in_batches

CHUNK = 32
"""Requests whose noise has consecutive seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationScores:
    """Scores over one set of requests. V/A in `affect.PUBLIC` units; None means undefined."""

    count: int
    """Requests."""
    images_per_request: int
    oracle_v_error: float | None
    """Mean |oracle − requested|."""
    oracle_a_error: float | None
    judge_v_error: float | None
    """Mean |judge − requested|."""
    judge_a_error: float | None
    judge_accuracy: float | None
    """Share of images in which the judge recognises the requested label."""
    diversity: float | None
    """Mean RMS distance between two images of one request, [0, 1]."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % bootstrap interval of each metric over the requests."""
    items: Items
    """The rows of each metric, for paired comparisons."""

    def to_dict(self) -> dict[str, object]:
        """Return the scores as plain data for a report."""
        return asdict(self)


def evaluate_generation(
    model: EmotionModel,
    requests: Sequence[EvalRequest],
    *,
    judge: Recogniser,
    oracle: Oracle | None = None,
    seed: int,
    guidance_scale: Scale | None = None,
    num_inference_steps: int | None = None,
    images_per_request: int = 2,
    chunk: int = CHUNK,
    resamples: int = RESAMPLES,
    processes: Processes = ALONE,
    show: Callable[[EvalRequest, Image.Image], None] | None = None,
    shown: int = 0,
) -> GenerationScores:
    """Generate `images_per_request` images of each request and score them.

    The judge is the same before and after training (the frozen starting model). The oracle scores
    requests with a subject. `processes` share the requests. `show` is called with the first image
    of each of the first `shown` requests; images are not kept elsewhere. Noise depends on `seed`
    and `chunk`.

    Ref: V-Error and A-Error, arXiv 2501.05710 (EmotiCrafter), section 4.2.

    Raises:
        UserError: no request.
    """
    if not requests:
        raise UserError("no request to evaluate", got="0 requests", expected="at least one")

    def evaluate(places: Sequence[int]) -> list[tuple[dict[str, float], Image.Image | None]]:
        wanted = [requests[place] for place in places]
        rounds = [
            model.generate(
                [one.request for one in wanted],
                seed=[_noise_seed(seed, place, chunk, turn) for place in places],
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
            )
            for turn in range(images_per_request)
        ]
        by_request = [list(images) for images in zip(*rounds, strict=True)]
        judged = iter(judge.recognise([im for images in by_request for im in images])[0])
        return [
            (
                _scores(one, images, list(itertools.islice(judged, len(images))), oracle),
                images[0] if place < shown else None,
            )
            for place, one, images in zip(places, wanted, by_request, strict=True)
        ]

    results = in_batches(
        range(len(requests)),
        evaluate,
        what="generating requests",
        processes=processes,
        batch=max(1, UNIT // images_per_request),
    )
    for wanted, (_, first) in zip(requests, results, strict=True):
        if show is not None and first is not None:
            show(wanted, first)
    measured = {}
    for name in MEASURED:
        places = [place for place, (found, _) in enumerate(results) if name in found]
        values = np.array([results[place][0][name] for place in places], dtype=np.float64)
        measured[name] = Measured(metrics.mean, (values,), places)
    ids = [f"{place}: {caption(wanted.request)}" for place, wanted in enumerate(requests)]
    scores = score(ids, measured, seed=seed, resamples=resamples)
    return GenerationScores(
        count=len(requests),
        images_per_request=images_per_request,
        **scores.values,
        intervals=scores.intervals,
        items=scores.items,
    )


MEASURED = (
    "oracle_v_error",
    "oracle_a_error",
    "judge_v_error",
    "judge_a_error",
    "judge_accuracy",
    "diversity",
)


def _scores(
    wanted: EvalRequest,
    images: list[Image.Image],
    judged: list[Understanding],
    oracle: Oracle | None,
) -> dict[str, float]:
    """Return the metrics that are defined for one request, each a mean over its images."""
    request = wanted.request
    scores: dict[str, float | None] = {
        "diversity": pairwise_rms(
            np.stack([np.asarray(load_image(image)) / 255 for image in images])
        )
    }
    if request.emotion is not None:
        scores["judge_accuracy"] = float(np.mean([j.emotion == request.emotion for j in judged]))
    views: dict[str, list[Affect]] = {"judge": [one.affect for one in judged]}
    if oracle is not None and wanted.subject is not None:
        views["oracle"] = [oracle(image, wanted.subject).to(PUBLIC) for image in images]
    if request.affect is not None:
        for source, affects in views.items():
            errors = [affect.errors(request.affect) for affect in affects]
            scores[f"{source}_v_error"] = float(np.mean([v_error for v_error, _ in errors]))
            scores[f"{source}_a_error"] = float(np.mean([a_error for _, a_error in errors]))
    return {name: value for name, value in scores.items() if value is not None}


def _noise_seed(seed: int, place: int, chunk: int, turn: int) -> int:
    # Every chunk of requests and every image of a request has its own seeds.
    start = place // chunk * chunk
    first = int(np.random.SeedSequence([seed, start, turn]).generate_state(1)[0])
    return first + place - start
