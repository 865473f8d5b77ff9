"""What generation is evaluated on: requests from samples, or from AffectWorld's sentences."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_tools.affectworld.scene import SUBJECTS, draw_scene
from data_tools.affectworld.text import neutral_prompt
from data_tools.affectworld.world import subject_of
from emosym.affect.scales import Affect
from emosym.errors import UserError
from emosym.inference.sweep import axis_values
from emosym.randomness import Draws
from emosym.records import ImageRequest, Sample, Split


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalRequest:
    """A generation request, and the subject of its image for the oracle (None where unknown)."""

    request: ImageRequest
    subject: str | None = None


def requests_from(
    samples: Sequence[Sample], count: int, seed: int, *, split: Split = "test"
) -> list[EvalRequest]:
    """Pick up to `count` samples of a split, and request what each shows and evokes.

    Groups are the emotion labels (without a label: the valence–arousal quadrant) and take turns, so
    that their sizes differ by at most one until a group is exhausted. The choice depends on `seed`
    and the samples' ids, not on their order.

    Raises:
        UserError: `count` is not positive, or no sample of `split` has a prompt, a label or a
            rating.
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


def held_out(samples: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    """Pick up to `count` samples of the test split that have a label, valence and arousal.

    The choice depends on `seed` and the samples' ids, not on their order.
    """
    rated = [s for s in samples if s.split == "test" and s.emotion and s.affect is not None]
    rated.sort(key=lambda sample: sample.id)
    random.Random(f"held out {seed}").shuffle(rated)
    return rated[:count]


def world_prompts(count: int, seed: int) -> list[EvalRequest]:
    """Return neutral prompts of AffectWorld's scenes; the subjects take turns.

    A larger count with the same seed begins with the same prompts. Seed s + 1 begins with the
    subject after that of seed s.

    AffectWorld has 2,160 sentences, so a model that was trained on thousands of its pictures has
    read most of them: the points and the noise are held out, not the prompts.
    """
    rng = random.Random(f"plane {seed}")
    requests: list[EvalRequest] = []
    for place in range(count):
        subject = SUBJECTS[(seed + place) % len(SUBJECTS)]
        prompt = neutral_prompt(
            draw_scene(rng, subject, 0.5, 0.5)
        )  # the prompt does not mention light
        requests.append(EvalRequest(request=ImageRequest(prompt=prompt), subject=subject))
    return requests


def over_plane(prompts: Sequence[EvalRequest], points: int, seed: int) -> list[EvalRequest]:
    """Return each prompt at one point of a grid of points × points of valence and arousal.

    Prompts are assigned to points at random; with a multiple of points² prompts, each point has
    equally many. One prompt at all points would correlate its requests, and make intervals over
    requests too narrow.
    """
    values = axis_values(points)
    grid = [Affect(valence, arousal) for valence in values for arousal in values]
    places = Draws(seed, "over the plane").permutation(len(prompts)).tolist()
    return [
        replace(one, request=replace(one.request, affect=grid[place % len(grid)]))
        for one, place in zip(prompts, places, strict=True)
    ]


def _request(sample: Sample) -> EvalRequest:
    return EvalRequest(
        request=ImageRequest(
            prompt=sample.prompt or "", emotion=sample.emotion, affect=sample.affect
        ),
        subject=subject_of(sample),
    )


def _group(request: ImageRequest) -> str:
    if request.emotion is not None:
        return request.emotion
    if request.affect is not None:
        return f"{request.affect.valence >= 0:d}{request.affect.arousal >= 0:d}"
    return ""
