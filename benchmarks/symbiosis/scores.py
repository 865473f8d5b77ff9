"""What is measured of an arm, on held-out images."""

from __future__ import annotations

from benchmarks.results import Row
from benchmarks.symbiosis.study import Study, Training
from data_tools.dataset import open_dataset
from emosym.inference.pipeline import EmoSymPipeline
from eval.generation.attributes import ATTRIBUTES, AttributeReader
from eval.generation.influence import evaluate_state_alone
from eval.generation.requests import held_out

UNDERSTANDING = {"accuracy": "accuracy", "v_mae": "valence MAE", "a_mae": "arousal MAE"}
"""Metric of understanding -> title."""
DRAWING = {
    "label": "label seen",
    "r_valence": "valence r",
    "r_arousal": "arousal r",
    **{f"above_{name}": f"{name.replace('_', ' ')} above chance" for name in ATTRIBUTES},
}
"""Metric of drawing from the state -> title."""


def understood(training: Training) -> Row:
    """Return `UNDERSTANDING` of a trained model."""
    scores = training.report["understanding"]["after"]
    return {name: scores[name] for name in UNDERSTANDING}


def drawn(study: Study, training: Training, seed: int) -> Row:
    """Return `DRAWING` of a trained model: images from the states of held-out images alone.

    No prompt, valence or arousal is given. The study's model judges; it is not trained here. None
    is a value that is not defined.
    """
    row = evaluate_state_alone(
        EmoSymPipeline.from_pretrained(training.model),
        held_out(open_dataset(study.world), study.drawn, seed),
        judge=EmoSymPipeline.from_pretrained(study.model),
        read=AttributeReader.load(),
        seed=seed,
    )
    return {
        "label": row.label,
        "r_valence": row.r_valence,
        "r_arousal": row.r_arousal,
        **{f"above_{name}": row.above_chance.get(name) for name in ATTRIBUTES},
    }
