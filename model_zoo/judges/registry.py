"""The registry of judges of generated images, which phase `reinforce` trains on and monitors."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

import torch

from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.interfaces import Recogniser, Scorer
from emosym.plugins import Registry
from emosym.rl.scorers import (
    AffectScorer,
    Judge,
    JudgeSpec,
    LabelScorer,
    UnderstandImages,
    image_understander,
)
from model_zoo import zoo
from model_zoo.judges.chat_client import RETRIES, TIMEOUT
from model_zoo.judges.clip_judges import Aesthetic, ClipIqa, ClipScore, PickScore, load_layer
from model_zoo.judges.remote import RemoteModel
from model_zoo.text.clip import load_clip

Device = torch.device | str


def build_judge(
    name: str, spec: JudgeSpec, *, own: Recogniser | None = None, device: Device = "cpu"
) -> Judge:
    """Build a judge, a `Scorer` whose scores are checked.

    Args:
        name: a key of `JUDGES`.
        spec: arguments of the judge.
        own: the frozen understanding branch, used by `affect` and `label` if `spec` has no path.
        device: of the judge's model; `own` is not moved.

    Raises:
        UserError: an unknown name; a key of `spec` that is missing, or that the judge does not
            take; a model that cannot be loaded.
    """
    build = JUDGES.look_up(name)
    parameters = inspect.signature(build).parameters
    keys = [field.name for field in dataclasses.fields(spec)]
    given = {key: value for key in keys if (value := getattr(spec, key)) is not None}
    for key in given:
        if key not in parameters:
            raise UserError(
                f"judge {name!r} has no key {key!r}",
                expected=", ".join(key for key in keys if key in parameters),
            )
    for key in keys:
        required = key in parameters and parameters[key].default is inspect.Parameter.empty
        if required and key not in given:
            raise UserError(f"judge {name!r}: {key} is missing", fix=f"set {key}")
    context = {"own": own, "device": device}
    return Judge(
        name, build(**given, **{k: value for k, value in context.items() if k in parameters})
    )


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
    max_tokens: int | None = None,
    max_completion_tokens: int | None = None,
    temperature: float = 0.0,
) -> Scorer:
    remote = RemoteModel(
        path,
        model,
        cache=cache,
        timeout=timeout,
        retries=retries,
        max_tokens=max_tokens,
        max_completion_tokens=max_completion_tokens,
        temperature=temperature,
    )
    return AffectScorer(remote.judge, shape)


def _check_builder(name: str, build: object) -> None:
    """Raise UserError for what cannot build a judge."""
    keys = {*(field.name for field in dataclasses.fields(JudgeSpec)), "own", "device"}
    expected = f"a function with keyword arguments among {', '.join(sorted(keys))}"
    if not callable(build):
        raise UserError(
            f"the judge {name!r} is not a function", got=type(build).__name__, expected=expected
        )
    for parameter in inspect.signature(build).parameters.values():
        optional = parameter.default is not inspect.Parameter.empty or parameter.kind in (
            inspect.Parameter.VAR_POSITIONAL,
            inspect.Parameter.VAR_KEYWORD,
        )
        named = parameter.kind is not inspect.Parameter.POSITIONAL_ONLY and parameter.name in keys
        if not optional and not named:
            raise UserError(
                f"the judge {name!r} takes an argument that nothing gives it",
                got=parameter.name,
                expected=expected,
            )


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
    _check_builder,
)
"""Name -> builder. Its keyword arguments are keys of `JudgeSpec`, and `own` and `device`."""


def _reader(own: Recogniser | None, path: str | None, device: Device) -> UnderstandImages:
    """Return the `understand` function of the model at `path`, or of our own branch."""
    if path is not None:
        return image_understander(EmoSymPipeline(zoo.load(path).to(device)))
    if own is None:
        raise UserError("no model to judge with", fix="set path to a model folder")
    return image_understander(own)
