"""Evaluation of predicted labels, valence and arousal against the annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError, unknown
from emosym.interfaces import AnswerParser, EmotionModel
from emosym.records import Sample
from emosym.tasks import metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderstandingScores:
    """Scores over one set of samples. V/A in `affect.PUBLIC` units; None means undefined."""

    count: int
    accuracy: float | None
    macro_f1: float | None
    v_mae: float | None
    a_mae: float | None
    v_pearson: float | None
    a_pearson: float | None
    v_ccc: float | None
    a_ccc: float | None
    v_mae_mean: float | None
    """Error of the constant prediction of the mean training rating."""
    a_mae_mean: float | None
    answer_valid: float | None
    """Share of the language head's answers that parse, [0, 1]."""
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    """Row = true label, column = predicted, both in the order of `labels`."""
    intervals: dict[str, tuple[float, float] | None]
    """95 % bootstrap interval of each metric over the samples."""

    def to_dict(self) -> dict[str, object]:
        """Return the scores as plain data for a report."""
        return asdict(self)


def evaluate_understanding(
    model: EmotionModel,
    samples: Sequence[Sample],
    *,
    train: Sequence[Sample] = (),
    parse: AnswerParser | None = None,
    labels: Sequence[str] = MIKELS8,
    seed: int = 0,
    resamples: int = 500,
) -> UnderstandingScores:
    """Let the model understand every sample's image, and score its predictions.

    A sample without a label (rating) is left out of label (rating) metrics. `train` holds the
    samples whose mean rating is the baseline. Without `parse`, no answer text is generated.

    Raises:
        UserError: no sample, a label that is not in `labels`, or a prediction of valence or arousal
            that is not on the public scale.
    """
    if not samples:
        raise UserError("no sample to evaluate", got="0 samples", expected="at least one")
    predictions = model.understand([sample.image for sample in samples], answer=parse is not None)
    pairs = list(zip(predictions, samples, strict=True))
    for prediction, sample in pairs:
        PUBLIC.check(prediction.affect.valence, f"the model's valence for {sample.id}")
        PUBLIC.check(prediction.affect.arousal, f"the model's arousal for {sample.id}")

    places = {label: place for place, label in enumerate(labels)}
    known = [(one.emotion, sample.emotion) for one, sample in pairs if sample.emotion]
    for label in (label for pair in known for label in pair):
        if label not in places:
            raise unknown("emotion", label, labels)
    predicted = np.array([places[label] for label, _ in known], dtype=np.int64)
    true = np.array([places[label] for _, label in known], dtype=np.int64)
    f1 = partial(metrics.macro_f1, classes=len(labels))

    measures: dict[str, tuple[metrics.Metric, NDArray, NDArray]] = {
        "accuracy": (metrics.accuracy, predicted, true),
        "macro_f1": (f1, predicted, true),
    }
    baseline: dict[str, float | None] = {}
    for axis, name in AXES.items():
        rated = [
            (getattr(one.affect, name), getattr(sample, name))
            for one, sample in pairs
            if getattr(sample, name) is not None
        ]
        predicted_ratings, true_ratings = np.array(rated, dtype=np.float64).reshape(-1, 2).T
        measures[f"{axis}_mae"] = (metrics.mae, predicted_ratings, true_ratings)
        measures[f"{axis}_pearson"] = (metrics.pearson, predicted_ratings, true_ratings)
        measures[f"{axis}_ccc"] = (metrics.ccc, predicted_ratings, true_ratings)
        ratings = [value for s in train if (value := getattr(s, name)) is not None]
        baseline[f"{axis}_mae_mean"] = (
            metrics.mae(np.full_like(true_ratings, np.mean(ratings)), true_ratings)
            if ratings
            else None
        )

    return UnderstandingScores(
        count=len(samples),
        **{name: metric(*arrays) for name, (metric, *arrays) in measures.items()},
        **baseline,
        answer_valid=(
            float(np.mean([parse(one.answer, s) is not None for one, s in pairs]))
            if parse
            else None
        ),
        labels=tuple(labels),
        confusion=(
            tuple(map(tuple, metrics.confusion_matrix(predicted, true, len(labels)).tolist()))
            if known
            else None
        ),
        intervals={
            name: metrics.bootstrap(metric, *arrays, seed=seed, resamples=resamples)
            for name, (metric, *arrays) in measures.items()
        },
    )


AXES = {"v": "valence", "a": "arousal"}
"""Prefix of a metric's name -> the axis."""
