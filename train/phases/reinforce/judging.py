"""Judges of the images that a run generates: some give the reward, others are only logged."""

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
from emosym.inference.inputs import wanted_affect
from emosym.interfaces import Scorer
from emosym.models.understander import UnderstanderOutput
from emosym.records import ImageRequest, Sample
from emosym.rl.scorers import Judge, JudgeSpec, check_scores
from model_zoo.judges.registry import build_judge
from train.reference import ReferenceModel

ORACLE = "oracle"
"""Name of the second judge on AffectWorld: its truth, computed from the pixels. Never a reward."""


class Scorers:
    """Named judges of generated images.

    A judge may leave an image unscored.

    Raises:
        UserError: an unknown judge, one that cannot be loaded.
    """

    def __init__(
        self, names: Sequence[str], specs: Mapping[str, JudgeSpec], reference: ReferenceModel
    ) -> None:
        device = reference.model.device
        self.scorers: dict[str, Judge] = {
            name: build_judge(name, specs.get(name, JudgeSpec()), own=reference, device=device)
            for name in names
        }

    def __call__(
        self,
        images: Sequence[Image.Image],
        requests: Sequence[ImageRequest],
        reasons: list[str] | None = None,
    ) -> dict[str, Tensor]:
        """Return the scores [N] of each judge; NaN is an image without a score.

        Args:
            images: to judge.
            requests: what was asked for, one for each image.
            reasons: gets why images have no score.

        Raises:
            UserError: a judge that cannot judge.
        """
        found = {}
        for name, scorer in self.scorers.items():
            found[name] = torch.from_numpy(scorer(images, requests)).float()
            if reasons is not None:
                reasons += scorer.reasons
        return found


def oracle_scorer(samples: Sequence[Sample]) -> Scorer | None:
    """Return AffectWorld's truth as a judge, in [0, 1] as `affect` is; None for other data."""
    if not samples or any(sample.source != SOURCE for sample in samples):
        return None
    subjects = {sample.prompt or "": subject_of(sample) or "" for sample in samples}

    def score(images: Sequence[Image.Image], requests: Sequence[ImageRequest]) -> np.ndarray:
        truths = [
            oracle(image, subjects[request.prompt]).to(PUBLIC)
            for image, request in zip(images, requests, strict=True)
        ]
        affects = torch.tensor([truth.coordinates for truth in truths])
        return check_scores(ORACLE, _nearness(affects, wanted_affect(requests)).numpy(), requests)

    return score


DifferentiableReward = Callable[[UnderstanderOutput, Sequence[ImageRequest], Sequence[str]], Tensor]
"""(output of the frozen understander for N images, requests, labels of its head) -> rewards [N]."""


def _affect(
    output: UnderstanderOutput, requests: Sequence[ImageRequest], labels: Sequence[str]
) -> Tensor:
    return _nearness(output.affect, wanted_affect(requests).to(output.affect.device))


def _label(
    output: UnderstanderOutput, requests: Sequence[ImageRequest], labels: Sequence[str]
) -> Tensor:
    places = []
    for request in requests:
        if request.emotion is None:
            raise UserError("judge 'label' needs an emotion", got=f"request {request.prompt!r}")
        places.append(list(labels).index(request.emotion))
    probabilities = output.emotion_logits.softmax(-1)
    return probabilities[torch.arange(len(places)), torch.tensor(places)]


GRADIENTS: dict[str, DifferentiableReward] = {"affect": _affect, "label": _label}
"""Judges that are differentiable with respect to the pixels."""


def differentiable(
    names: Sequence[str], specs: Mapping[str, JudgeSpec]
) -> dict[str, DifferentiableReward]:
    """Return differentiable judges by name.

    Raises:
        UserError: a judge that is not differentiable.
    """
    for name in names:
        if name not in GRADIENTS:
            raise unknown("differentiable judge", name, GRADIENTS)
        if specs.get(name, JudgeSpec()) != JudgeSpec():
            raise UserError(
                f"judge {name!r} is differentiable only as our own branch with a linear score",
                got=specs[name],
                fix=f"leave out reinforce.judges.{name}, or choose another reinforce.algorithm",
            )
    return {name: GRADIENTS[name] for name in names}


def _nearness(affects: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 - the mean error as a share of the scale, [N]; as `scorers.AffectScorer`."""
    return 1 - (affects - wanted).abs().mean(-1) / (PUBLIC.high - PUBLIC.low)
