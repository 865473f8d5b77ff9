"""`make study-memory`: does a memory bank of generated images help when labels are few?

For each seed 5 % of AffectWorld's images keep their label. A model with random weights is trained
on them; this start model also judges and embeds images. Every arm continues training from it for
the same number of optimizer steps: on the labelled images alone, or also on images of the shipped
generator, which phase `remember` offers to a bank in portions. A generated image has the content of
one labelled image and the emotion of another. The shipped understanding branch is not used, because
it was trained on 6000 labels. The generator was trained on them too: like any pretrained generator
it knows more than the few labels.

A wrong judge inverts its judgement of 40 % of the images, chosen by their fingerprint: it reports
the requested emotion for images that it should reject, and another one for images that it should
accept, with confidence 1 - c. Embeddings and fingerprints stay the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.few_labels import few_labels
from benchmarks.intervals import changes, interval
from benchmarks.results import Results, Row, markdown
from benchmarks.study_run import finished
from data_tools.affectworld.truth import label_of, oracle
from data_tools.affectworld.world import subject_of, write_world
from data_tools.dataset import open_dataset
from data_tools.manifest import write_manifest
from emosym.affect.taxonomies import MIKELS8
from emosym.inference.pipeline import EmoSymPipeline
from emosym.pictures.loading import load_image
from emosym.randomness import Draws
from emosym.records import ImageRequest, Sample
from memory_bank import Candidate, MemoryBank
from model_zoo import zoo
from train.phases.registry import PHASES
from train.phases.remember import Remember

MODEL = "emosym-tiny"
IMAGES, LABELS = 3000, 150
VARIANTS, SAMPLING_STEPS = 4, 8
"""Generated images for each labelled one; their sampling steps."""
WRONG = 0.4
"""Fraction of the images that the wrong judge is wrong about."""
PRESET = Path(__file__).parents[1] / "train" / "presets" / "tiny" / "low-label-tiny.yaml"
PORTIONS = 4
"""Steps of `remember` in an arm, evenly spaced; together they offer every image once."""

PUBLISHED = (
    "remember.admission.gates=[confidence]",
    "remember.admission.replacement=highest_confidence",
    "remember.admission.max_diversity_loss=1",
    "remember.admission.min_admission_rate=0",
    "remember.admission.max_admission_rate=1",
)
ARMS: dict[str, tuple[str, ...] | None] = {
    "no bank": None,
    "as released": (*PUBLISHED, "remember.admission.top_quantile=1"),
    "as stated": (*PUBLISHED, "remember.admission.top_quantile=0.2"),
    "ours": (),
}
"""Arm -> its overrides of the preset; None for no bank."""
JUDGED = ("as stated", "ours")
"""Arms that also run with a wrong judge. The released gate accepts everything anyway."""
TITLES = {"accuracy": "accuracy", "v_mae": "valence MAE", "a_mae": "arousal MAE"}
"""Metric -> its column in the table."""


class WrongJudge(Remember):
    """Phase `remember` with a judge that is wrong about `WRONG` of the images."""

    def _candidates(
        self, samples: Sequence[Sample], seeds: Sequence[int], step: int
    ) -> list[Candidate]:
        return [inverted(candidate) for candidate in super()._candidates(samples, seeds, step)]


def inverted(candidate: Candidate) -> Candidate:
    """Return a candidate with the inverted judgement, if the wrong judge is wrong about it."""
    emotion, fingerprint = candidate.emotion, candidate.fingerprint
    affect, confidence = candidate.affect, candidate.confidence
    if emotion is None or fingerprint is None:
        raise ValueError("the candidate has no emotion or no fingerprint")
    if affect is None or confidence is None:
        raise ValueError("the candidate has no requested affect or no judgement")
    if Draws("wrong", fingerprint).uniform(1).item() >= WRONG:
        return candidate
    right = candidate.predicted == emotion
    other = MIKELS8[(MIKELS8.index(emotion) + 4) % len(MIKELS8)]
    sign = -1 if right else 1
    return dataclasses.replace(
        candidate,
        predicted=other if right else emotion,
        predicted_valence=sign * affect.valence,
        predicted_arousal=sign * affect.arousal,
        confidence=1 - confidence,
    )


def main(
    out: Annotated[Path, typer.Option(help="Folder of the study; an old one is continued.")],
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0 .. N - 1.")] = 5,
    steps: Annotated[int, typer.Option(help="Optimizer steps of each arm.")] = 80,
) -> None:
    """Run all arms and seeds without a result, and print the table."""
    from model_zoo.quiet import quiet_libraries
    from train.distributed import ranks

    quiet_libraries()
    ranks.join()
    results = Results(out)
    if not (out / "world").exists():
        write_world(out / "world", IMAGES, 0)
    arms = [(arm, False) for arm in ARMS] + [(arm, True) for arm in JUDGED]
    starts = [prepare(out, seed) for seed in range(seeds)]
    for arm, wrong in arms:
        for seed, start in enumerate(starts):
            key = {"seed": seed, "arm": arm, "wrong": wrong}
            if not results.has(key):
                results.add(key | measure(out, start, seed, arm, wrong=wrong, steps=steps))
    print(table(results.rows))


def prepare(out: Path, seed: int) -> Path:
    """Make labels, generated images and start model of a seed; return the model's folder."""
    samples = open_dataset(out / "world")
    data, generated, run = (out / f"{name}-{seed}" for name in ("labels", "drawn", "start"))
    manifest, pool = data.with_suffix(".jsonl"), generated.with_suffix(".jsonl")
    labelled = few_labels([s for s in samples if s.split == "train"], LABELS, seed)
    if not manifest.exists():
        write_manifest(manifest, [*labelled, *(s for s in samples if s.split == "test")])
    if not pool.exists():
        write_manifest(pool, generate(labelled, generated, seed))
    finished(PRESET, run, manifest, [f"seed={seed}"])
    return run / "model"


def generate(labelled: Sequence[Sample], folder: Path, seed: int) -> list[Sample]:
    """Generate images with the prompt of one labelled image and the affect of another."""
    folder.mkdir(exist_ok=True)
    requests = [
        ImageRequest(
            prompt=content.prompt or "",
            emotion=labelled[other].emotion,
            affect=labelled[other].affect,
        )
        for variant in range(VARIANTS)
        for content, other in zip(
            labelled, Draws("felt", seed, variant).permutation(len(labelled)).tolist(), strict=True
        )
    ]
    images = EmoSymPipeline(zoo.load(MODEL)).generate(
        requests, seed=seed * len(requests), num_inference_steps=SAMPLING_STEPS
    )
    samples = []
    for number, (request, image) in enumerate(zip(requests, images, strict=True)):
        path = folder / f"{number:04d}.png"
        image.save(path)
        samples.append(
            Sample(
                id=path.stem,
                image=path.resolve(),
                split="train",
                source="generated",
                **request.to_dict(),
            )
        )
    return samples


def measure(out: Path, start: Path, seed: int, arm: str, *, wrong: bool, steps: int) -> Row:
    """Run an arm; return its scores and the content of its bank."""
    options = ARMS[arm]
    folder = out / f"{arm.replace(' ', '-')}{'-wrong' if wrong else ''}-{seed}"
    overrides = [
        f"model={start}",
        "from_scratch=false",
        f"seed={seed}",
        f"stages=[{{steps: {steps}, cycle: {{compress: 1}}}}]",
    ]
    if options is not None:
        share = -(-LABELS * VARIANTS // (len(MIKELS8) * PORTIONS))
        cycle = f"{{remember: 1, compress: {-(-steps // PORTIONS)}}}"
        overrides[-1] = f"stages=[{{steps: {steps + PORTIONS}, cycle: {cycle}}}]"
        overrides += [
            f"remember.generated={out / f'drawn-{seed}.jsonl'}",
            f"remember.per_emotion={share}",
            *options,
        ]
    PHASES["remember"] = WrongJudge if wrong else Remember
    report = finished(PRESET, folder, out / f"labels-{seed}.jsonl", overrides)
    scores = report["understanding"]["after"]
    return {name: scores[name] for name in TITLES} | (
        {} if options is None else bank_content(out, folder, seed)
    )


def bank_content(out: Path, folder: Path, seed: int) -> Row:
    """Return the sizes of a run's bank, and the fraction of its generated images that are right.

    An image is right if AffectWorld's ground truth gives the emotion of its entry.
    """
    subjects = {s.prompt: subject_of(s) or "" for s in open_dataset(out / f"labels-{seed}.jsonl")}
    with MemoryBank.open(folder / "bank") as bank:
        synthetic = bank.entries(source="synthetic")
        right = []
        for entry in synthetic:
            affect = oracle(load_image(bank.image_path(entry)), subjects[entry.prompt])
            right.append(label_of(affect) == entry.emotion)
        sizes = bank.stats()
    return {
        "real": sizes["real"],
        "synthetic": sizes["synthetic"],
        "right": float(np.mean(right)) if right else None,
    }


def table(rows: Sequence[Row]) -> str:
    """Return a Markdown table of each arm's scores and their change against no bank.

    Values are means over seeds with 95 % confidence intervals (Student's t); changes are paired by
    seed.
    """
    base = [row for row in rows if row["arm"] == "no bank"]
    columns = ["arm", "judge", "seeds", "real, synthetic in the bank", "right"]
    for title in TITLES.values():
        columns += [title, "change"]
    lines = []
    for arm, wrong in dict.fromkeys((row["arm"], row["wrong"]) for row in rows):
        group = [row for row in rows if (row["arm"], row["wrong"]) == (arm, wrong)]
        cells = [arm, "wrong" if wrong else "right", str(len(group))]
        if "real" in group[0]:
            cells.append(f"{_mean(group, 'real'):.0f}, {_mean(group, 'synthetic'):.0f}")
            cells.append(f"{_mean(group, 'right'):.2f}")
        else:
            cells += ["–", "–"]
        for name in TITLES:
            cells.append(interval([row[name] for row in group]))
            change = changes(group, base, name)
            cells.append("–" if arm == "no bank" else interval(change, sign="+"))
        lines.append(cells)
    return markdown(columns, lines)


def _mean(rows: Sequence[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows if row[name] is not None]))


if __name__ == "__main__":
    typer.run(main)
