"""Judges of generated images by name: whom `reinforce` learns from, and whom it is watched by."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image

from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.interfaces import Recogniser, Scorer
from emosym.plugins import Registry
from emosym.records import ImageRequest
from emosym.rl.scorers import (
    AffectScorer,
    JudgeSpec,
    LabelScorer,
    UnderstandImages,
    check_scores,
    image_understander,
)
from model_zoo import zoo
from model_zoo.judges.chat import RETRIES, TIMEOUT
from model_zoo.judges.clip_judges import Aesthetic, ClipIqa, ClipScore, PickScore, load_layer
from model_zoo.judges.remote import RemoteModel
from model_zoo.text.clip import load_clip

Device = torch.device | str


def judge(
    name: str, spec: JudgeSpec, *, own: Recogniser | None = None, device: Device = "cpu"
) -> Scorer:
    """Return a judge whose scores are checked by `scorers.check_scores`.

    Args:
        name: a key of `JUDGES`.
        spec: where it comes from.
        own: our own understanding branch, frozen; asked by `affect` and `label` without a path.
        device: where its model goes; `own` stays where it is.

    Raises:
        UserError: unknown name; a key of `spec` that is missing or not of this judge; what cannot
            be loaded.
    """
    build = JUDGES.look_up(name)
    takes = inspect.signature(build).parameters
    keys = [field.name for field in dataclasses.fields(spec)]
    given = {key: value for key in keys if (value := getattr(spec, key)) is not None}
    for key in given:
        if key not in takes:
            raise UserError(
                f"judge {name!r} has no key {key!r}",
                expected=", ".join(key for key in keys if key in takes),
            )
    for key in keys:
        if key in takes and takes[key].default is inspect.Parameter.empty and key not in given:
            raise UserError(f"judge {name!r}: {key} is missing", fix=f"set {key}")
    around = {"own": own, "device": device}
    scorer = build(**given, **{key: value for key, value in around.items() if key in takes})

    def score(images: Sequence[Image.Image], requests: Sequence[ImageRequest]) -> np.ndarray:
        return check_scores(name, scorer(images, requests), requests)

    return score


def _affect(
    *, own: Recogniser | None, device: Device, path: str | None = None, shape: str = "linear"
) -> Scorer:
    return AffectScorer(_reader(own, path, device), shape)


def _label(*, own: Recogniser | None, device: Device, path: str | None = None) -> Scorer:
    return LabelScorer(_reader(own, path, device))


def _pickscore(*, path: str, device: Device) -> Scorer:
    return PickScore(load_clip(path, device))


def _clipscore(*, path: str, device: Device) -> Scorer:
    return ClipScore(load_clip(path, device))


def _aesthetic(*, path: str, weights: str, device: Device) -> Scorer:
    clip = load_clip(path, device)
    return Aesthetic(clip, *load_layer(weights, clip.width))


def _clip_iqa(*, path: str, device: Device) -> Scorer:
    return ClipIqa(load_clip(path, device))


def _http(
    *,
    path: str,
    model: str,
    shape: str = "linear",
    cache: str | None = None,
    timeout: float = TIMEOUT,
    retries: int = RETRIES,
) -> Scorer:
    remote = RemoteModel(path, model, cache=cache, timeout=timeout, retries=retries)
    return AffectScorer(remote.understand, shape)


JUDGES: Registry[Callable[..., Scorer]] = Registry(
    "judge",
    {
        "affect": _affect,
        "label": _label,
        "pickscore": _pickscore,
        "clipscore": _clipscore,
        "aesthetic": _aesthetic,
        "clip_iqa": _clip_iqa,
        "http": _http,
    },
)
"""Name -> its builder, whose keywords are the keys of `JudgeSpec` that it takes."""


def _reader(own: Recogniser | None, path: str | None, device: Device) -> UnderstandImages:
    """Return how our own branch reads images, or the model of another folder or name."""
    if path is not None:
        return image_understander(EmoSymPipeline(zoo.load(path).to(device)))
    if own is None:
        raise UserError("no model to judge with", fix="set path to a model folder")
    return image_understander(own)
