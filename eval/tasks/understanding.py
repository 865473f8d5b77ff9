"""Evaluation of predicted labels, valence and arousal against the annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from emosym.affect.scales import PUBLIC
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError, unknown
from emosym.interfaces import AnswerParser, EmotionModel
from emosym.records import Sample
from emosym.tasks import metrics
from eval.scores import RESAMPLES, Items, Measured, score
from eval.share import ALONE, Processes, in_batches


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
    items: Items
    """The rows of each metric, for paired comparisons."""

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
    resamples: int = RESAMPLES,
    processes: Processes = ALONE,
) -> UnderstandingScores:
    """Let the model understand every sample's image, and score its predictions.

    A sample without a label (rating) is left out of label (rating) metrics. `train` holds the
    samples whose mean rating is the baseline. Without `parse`, no answer text is generated.
    `processes` share the images.

    Raises:
        UserError: no sample, a label that is not in `labels`, or a prediction of valence or arousal
            that is not on the public scale.
    """
    if not samples:
        raise UserError("no sample to evaluate", got="0 samples", expected="at least one")
    predictions = in_batches(
        [sample.image for sample in samples],
        lambda images: model.understand(images, answer=parse is not None),
        what="understanding images",
        processes=processes,
    )
    pairs = list(zip(predictions, samples, strict=True))
    for prediction, sample in pairs:
        PUBLIC.check(prediction.affect.valence, f"the model's valence for {sample.id}")
        PUBLIC.check(prediction.affect.arousal, f"the model's arousal for {sample.id}")

    classes = {label: place for place, label in enumerate(labels)}
    labelled = [
        (place, one.emotion, sample.emotion)
        for place, (one, sample) in enumerate(pairs)
        if sample.emotion
    ]
    places = [place for place, _, _ in labelled]
    known = [(told, label) for _, told, label in labelled]
    for label in (label for pair in known for label in pair):
        if label not in classes:
            raise unknown("emotion", label, labels)
    predicted = np.array([classes[label] for label, _ in known], dtype=np.int64)
    true = np.array([classes[label] for _, label in known], dtype=np.int64)
    f1 = partial(metrics.macro_f1, classes=len(labels))

    measured = {
        "accuracy": Measured(metrics.accuracy, (predicted, true), places),
        "macro_f1": Measured(f1, (predicted, true), places),
    }
    baseline: dict[str, float | None] = {}
    for axis, name in AXES.items():
        rated = [place for place, sample in enumerate(samples) if getattr(sample, name) is not None]
        values = [(getattr(pairs[i][0].affect, name), getattr(samples[i], name)) for i in rated]
        predicted_ratings, true_ratings = np.array(values, dtype=np.float64).reshape(-1, 2).T
        for metric in (metrics.mae, metrics.pearson, metrics.ccc):
            arrays = (predicted_ratings, true_ratings)
            measured[f"{axis}_{metric.__name__}"] = Measured(metric, arrays, rated)
        ratings = [value for s in train if (value := getattr(s, name)) is not None]
        baseline[f"{axis}_mae_mean"] = (
            metrics.mae(np.full_like(true_ratings, np.mean(ratings)), true_ratings)
            if ratings
            else None
        )
    if parse is not None:
        valid = np.array([float(parse(one.text, sample) is not None) for one, sample in pairs])
        measured["answer_valid"] = Measured(metrics.mean, (valid,), range(len(pairs)))
    scores = score([sample.id for sample in samples], measured, seed=seed, resamples=resamples)

    return UnderstandingScores(
        count=len(samples),
        **{"answer_valid": None, **scores.values, **baseline},
        labels=tuple(labels),
        confusion=(
            tuple(map(tuple, metrics.confusion_matrix(predicted, true, len(labels)).tolist()))
            if known
            else None
        ),
        intervals=scores.intervals,
        items=scores.items,
    )


AXES = {"v": "valence", "a": "arousal"}
"""Prefix of a metric's name -> the axis."""
