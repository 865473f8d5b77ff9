"""Evaluation of generation: whether images evoke what was requested, and how diverse they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from emosym.affect.scales import PUBLIC, Affect
from emosym.errors import UserError
from emosym.interfaces import EmotionModel, Oracle, Recogniser
from emosym.pictures.loading import load_image
from emosym.records import Understanding
from emosym.rl.image_statistics import pairwise_rms
from emosym.tasks import metrics
from eval.generation.requests import EvalRequest


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
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    images_per_request: int = 2,
    batch: int = 32,
    resamples: int = 500,
    show: Callable[[EvalRequest, list[Image.Image]], None] | None = None,
) -> GenerationScores:
    """Generate `images_per_request` images of each request and score them.

    The judge is the same before and after training (the frozen starting model). The oracle scores
    requests with a subject. `show` is called with the images of each request; they are not kept
    elsewhere. Noise depends on `seed` and `batch`.

    Ref: V-Error and A-Error, arXiv 2501.05710 (EmotiCrafter), section 4.2.

    Raises:
        UserError: no request.
    """
    if not requests:
        raise UserError("no request to evaluate", got="0 requests", expected="at least one")
    values: dict[str, list[float]] = {name: [] for name in MEASURED}
    for start in range(0, len(requests), batch):
        chunk = requests[start : start + batch]
        rounds = [
            model.generate(
                [wanted.request for wanted in chunk],
                seed=_noise_seed(seed, start, turn),
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
            )
            for turn in range(images_per_request)
        ]
        by_request = [list(images) for images in zip(*rounds, strict=True)]
        judged = iter(judge.recognise([im for images in by_request for im in images])[0])
        for wanted, images in zip(chunk, by_request, strict=True):
            judgements = list(itertools.islice(judged, len(images)))
            for name, value in _scores(wanted, images, judgements, oracle).items():
                values[name].append(value)
            if show is not None:
                show(wanted, images)
    arrays = {name: np.array(each, dtype=np.float64) for name, each in values.items()}
    return GenerationScores(
        count=len(requests),
        images_per_request=images_per_request,
        **{name: metrics.mean(array) for name, array in arrays.items()},
        intervals={
            name: metrics.bootstrap(metrics.mean, array, seed=seed, resamples=resamples)
            for name, array in arrays.items()
        },
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


def _noise_seed(seed: int, start: int, turn: int) -> int:
    # Every batch and every image of a request has its own noise.
    return int(np.random.SeedSequence([seed, start, turn]).generate_state(1)[0])
