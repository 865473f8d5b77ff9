"""How well a model generates: does the image evoke what was asked, and do images differ."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from PIL import Image

from data_tools.affectworld.world import subject_of
from emosym.affect.scales import PUBLIC
from emosym.errors import UserError
from emosym.interfaces import EmotionModel, Oracle, Recogniser
from emosym.records import ImageRequest, Sample, Split, Understanding
from emosym.rl.image_statistics import pairwise_rms
from eval.metrics import statistics as metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRequest:
    """A request and the subject its image should show, for the oracle; None where unknown."""

    request: ImageRequest
    subject: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationScores:
    """Scores over one set of requests. V/A in `affect.PUBLIC` units; None means undefined."""

    count: int
    """Requests."""
    images_per_request: int
    oracle_v_error: float | None
    """Mean |oracle − asked|."""
    oracle_a_error: float | None
    judge_v_error: float | None
    """Mean |judge − asked|."""
    judge_a_error: float | None
    judge_accuracy: float | None
    """Share of images in which the judge sees the label asked for."""
    diversity: float | None
    """Mean RMS distance between two images of one request, [0, 1]."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % bootstrap interval of each metric over the requests."""

    def to_dict(self) -> dict[str, object]:
        """Return the scores as plain data for a report."""
        return asdict(self)


def requests_from(
    samples: Sequence[Sample], count: int, seed: int, *, split: Split = "test"
) -> list[EvalRequest]:
    """Pick up to `count` held-out samples and ask for what each shows and evokes.

    Only `split` is looked at. Groups are the emotion labels (without one: the valence–arousal
    quadrant) and take turns, so that their sizes differ by at most one until a group runs out. The
    choice depends on `seed` and the samples' ids, not on their order.

    Raises `UserError` when `count` is not positive or no sample of `split` has a prompt, a label or
    a rating.
    """
    if count < 1:
        raise UserError("number of requests is not positive", got=count, expected="1 or more")
    groups: dict[str, list[EvalRequest]] = {}
    for sample in sorted(samples, key=lambda sample: sample.id):
        wanted = _request(sample)
        if sample.split == split and wanted.request != ImageRequest():
            groups.setdefault(_group(wanted.request), []).append(wanted)
    if not groups:
        raise UserError(
            "no sample to make a request from",
            got=f"{len(samples)} samples",
            expected=f"one of split {split!r} with a prompt, a label or a rating",
        )
    shuffle = random.Random(seed).shuffle
    for name in sorted(groups):
        shuffle(groups[name])
    order = sorted(
        ((turn, name) for name, members in groups.items() for turn in range(len(members)))
    )
    return [groups[name][turn] for turn, name in order[:count]]


def evaluate_generation(
    model: EmotionModel,
    requests: Sequence[EvalRequest],
    *,
    judge: Recogniser,
    oracle: Oracle | None = None,
    seed: int,
    guidance: float | None = None,
    steps: int | None = None,
    images_per_request: int = 2,
    batch: int = 32,
    resamples: int = 500,
    show: Callable[[EvalRequest, list[Image.Image]], None] | None = None,
) -> GenerationScores:
    """Generate `images_per_request` images of each request and score them.

    The judge is the same before and after training (the frozen starting model). The oracle scores
    requests with a subject. `show` is given the images of each request as they come; nothing else
    keeps them. Noise depends on `seed` and `batch`.

    Ref: V-Error and A-Error, arXiv 2501.05710 (EmotiCrafter) §4.2.

    Raises `UserError` when `requests` is empty.
    """
    if not requests:
        raise UserError("no request to evaluate", got="0 requests", expected="at least one")
    found: dict[str, list[float]] = {name: [] for name in MEASURED}
    for start in range(0, len(requests), batch):
        chunk = requests[start : start + batch]
        rounds = [
            model.generate(
                [wanted.request for wanted in chunk],
                seed=_noise_seed(seed, start, turn),
                guidance_scale=guidance,
                num_inference_steps=steps,
            )
            for turn in range(images_per_request)
        ]
        drawn = [list(images) for images in zip(*rounds, strict=True)]
        judged = iter(judge.recognise([im for images in drawn for im in images])[0])
        for wanted, images in zip(chunk, drawn, strict=True):
            seen = list(itertools.islice(judged, len(images)))
            for name, value in _scores(wanted, images, seen, oracle).items():
                found[name].append(value)
            if show is not None:
                show(wanted, images)
    arrays = {name: np.array(values, dtype=np.float64) for name, values in found.items()}
    return GenerationScores(
        count=len(requests),
        images_per_request=images_per_request,
        **{name: _mean(values) for name, values in arrays.items()},
        intervals={
            name: metrics.bootstrap(_mean, values, seed=seed, resamples=resamples)
            for name, values in arrays.items()
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
    """Return what can be measured on the images of one request, each a mean over them."""
    asked = wanted.request
    scores: dict[str, float | None] = {
        "diversity": pairwise_rms(
            np.stack([np.asarray(image.convert("RGB")) / 255 for image in images])
        )
    }
    if asked.emotion is not None:
        scores["judge_accuracy"] = float(np.mean([j.emotion == asked.emotion for j in judged]))
    views = {"judge": judged}
    if oracle is not None and wanted.subject is not None:
        views["oracle"] = [oracle(image, wanted.subject).to(PUBLIC) for image in images]
    if asked.valence is not None and asked.arousal is not None:
        for who, seen in views.items():
            scores[f"{who}_v_error"] = float(
                np.mean([abs(s.valence - asked.valence) for s in seen])
            )
            scores[f"{who}_a_error"] = float(
                np.mean([abs(s.arousal - asked.arousal) for s in seen])
            )
    return {name: value for name, value in scores.items() if value is not None}


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _noise_seed(seed: int, start: int, turn: int) -> int:
    # Own noise for every chunk and turn, whatever a model does with positions inside one call.
    return int(np.random.SeedSequence([seed, start, turn]).generate_state(1)[0])


def _request(sample: Sample) -> EvalRequest:
    rated = sample.valence is not None and sample.arousal is not None
    return EvalRequest(
        request=ImageRequest(
            prompt=sample.prompt or "",
            emotion=sample.emotion,
            valence=sample.valence if rated else None,
            arousal=sample.arousal if rated else None,
        ),
        subject=subject_of(sample),
    )


def _group(request: ImageRequest) -> str:
    if request.emotion is not None:
        return request.emotion
    if request.valence is not None and request.arousal is not None:
        return f"{request.valence >= 0:d}{request.arousal >= 0:d}"
    return ""
