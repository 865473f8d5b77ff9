"""Who judges the images that a run makes: those it learns from, and those who only watch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data_tools.affectworld.truth import oracle
from data_tools.affectworld.world import SOURCE, subject_of
from emosym.affect.scales import PUBLIC
from emosym.errors import UserError, unknown
from emosym.inference.pipeline import wanted_affect
from emosym.interfaces import Scorer
from emosym.models.understander import UnderstanderOutput
from emosym.records import ImageRequest, Sample
from emosym.rl.scorers import JudgeSpec, check_scores
from model_zoo.judges.registry import build_judge
from train.reference import ReferenceModel

ORACLE = "oracle"
"""The second judge of AffectWorld: its truth, recomputed from the pixels. Never a reward."""


class Scorers:
    """Named judges of generated images.

    Raises:
        UserError: an unknown judge, one that cannot be loaded.
    """

    def __init__(
        self, names: Sequence[str], specs: Mapping[str, JudgeSpec], reference: ReferenceModel
    ) -> None:
        device = reference.model.device
        self.scorers: dict[str, Scorer] = {
            name: build_judge(name, specs.get(name, JudgeSpec()), own=reference, device=device)
            for name in names
        }

    def __call__(
        self, images: Sequence[Image.Image], requests: Sequence[ImageRequest]
    ) -> dict[str, Tensor]:
        """Return the scores [N] of each judge.

        Raises:
            UserError: a score that is missing or not finite.
        """
        return {
            name: torch.from_numpy(scorer(images, requests)).float()
            for name, scorer in self.scorers.items()
        }


def oracle_scorer(samples: Sequence[Sample]) -> Scorer | None:
    """Return AffectWorld's truth as a judge, in [0, 1] as `affect` is; None for other data."""
    if not samples or any(sample.source != SOURCE for sample in samples):
        return None
    subjects = {sample.prompt: subject_of(sample) for sample in samples}

    def score(images: Sequence[Image.Image], requests: Sequence[ImageRequest]) -> np.ndarray:
        seen = [
            oracle(image, subjects[request.prompt]).to(PUBLIC)
            for image, request in zip(images, requests, strict=True)
        ]
        found = torch.tensor([(each.valence, each.arousal) for each in seen])
        return check_scores(ORACLE, _nearness(found, wanted_affect(requests)).numpy(), requests)

    return score


DifferentiableReward = Callable[[UnderstanderOutput, Sequence[ImageRequest], Sequence[str]], Tensor]
"""(what the frozen understander reads of N images, requests, labels of its head) -> [N]."""


def _affect(
    reading: UnderstanderOutput, requests: Sequence[ImageRequest], labels: Sequence[str]
) -> Tensor:
    return _nearness(reading.affect, wanted_affect(requests).to(reading.affect.device))


def _label(
    reading: UnderstanderOutput, requests: Sequence[ImageRequest], labels: Sequence[str]
) -> Tensor:
    places = []
    for request in requests:
        if request.emotion is None:
            raise UserError("judge 'label' needs an emotion", got=f"request {request.prompt!r}")
        places.append(list(labels).index(request.emotion))
    chances = reading.emotion_logits.softmax(-1)
    return chances[torch.arange(len(places)), torch.tensor(places)]


GRADIENTS: dict[str, DifferentiableReward] = {"affect": _affect, "label": _label}
"""Judges through which a gradient goes from the score to the pixels."""


def differentiable(
    names: Sequence[str], specs: Mapping[str, JudgeSpec]
) -> dict[str, DifferentiableReward]:
    """Return judges by name as functions with a gradient.

    Raises:
        UserError: one that has none.
    """
    for name in names:
        if name not in GRADIENTS:
            raise unknown("judge with a gradient", name, GRADIENTS)
        if specs.get(name, JudgeSpec()) != JudgeSpec():
            raise UserError(
                f"judge {name!r} gives a gradient as our own branch, with a linear score, alone",
                got=specs[name],
                fix=f"leave out reinforce.judges.{name}, or choose another reinforce.algorithm",
            )
    return {name: GRADIENTS[name] for name in names}


def _nearness(found: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 - the mean error as a share of the scale, [N]; as `scorers.AffectScorer`."""
    return 1 - (found - wanted).abs().mean(-1) / (PUBLIC.high - PUBLIC.low)
