"""`make study-memory`: does a memory bank of generated images help where labels are few?

For each seed: 5 % of AffectWorld's images keep their label. A model of random weights learns from
them (the start, which then judges and embeds), and goes on from there for as many optimizer steps
in each arm: from the labelled images alone, or with images of the shipped generator, each of what
one labelled image shows, evoking what another does, offered to a bank in portions by `remember`.
The shipped understanding branch has seen 6000 labels, so nothing of it takes part; the generator
has seen them too: like any pretrained one it knows more than the labels at hand say.

A wrong judge turns its verdict round for 40 % of the images, decided by the image: of what it
should refuse it says what was asked, with the more confidence the less it saw it, and the other way
round. Its neighbours and fingerprints it cannot change.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from data_tools.affectworld.truth import label_of, oracle
from data_tools.affectworld.world import subject_of, write_world
from data_tools.dataset import open_dataset
from data_tools.images import load_image
from data_tools.manifest import write_manifest
from emosym.affect.taxonomies import MIKELS8
from emosym.inference.pipeline import EmoSymPipeline
from emosym.randomness import Draws
from emosym.records import ImageRequest, Sample
from memory_bank import Candidate, MemoryBank
from model_zoo import zoo
from train import run as runs
from train.phases import PHASES
from train.phases.remember.phase import Remember

MODEL = "emosym-tiny"
IMAGES, LABELS = 3000, 150
VARIANTS, SAMPLING_STEPS = 4, 8
"""Images drawn for each labelled one; steps to draw one."""
WRONG = 0.4
"""Share of the images that the wrong judge is wrong about."""
PRESET = Path(__file__).parents[1] / "train" / "presets" / "tiny" / "low-label-tiny.yaml"
PORTIONS = 4
"""Steps of `remember` in an arm, spread evenly; together they offer every image once."""

PUBLISHED = (
    "remember.gates=[confidence]",
    "remember.replacement=highest_confidence",
    "remember.diversity_loss=1",
    "remember.admission_low=0",
    "remember.admission_high=1",
)
ARMS: dict[str, tuple[str, ...] | None] = {
    "no bank": None,
    "as released": (*PUBLISHED, "remember.top_share=1"),
    "as stated": (*PUBLISHED, "remember.top_share=0.2"),
    "ours": (),
}
"""Arm -> what it changes; None has no bank."""
JUDGED = ("as stated", "ours")
"""Arms that a wrong judge is tried on; as released, everything is accepted whatever it says."""
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom."""
TITLES = {"accuracy": "accuracy", "v_mae": "valence MAE", "a_mae": "arousal MAE"}


class WrongJudge(Remember):
    """Phase `remember` with a judge that is wrong about `WRONG` of the images."""

    def _candidates(
        self, samples: Sequence[Sample], seeds: Sequence[int], step: int
    ) -> list[Candidate]:
        return [turned(one) for one in super()._candidates(samples, seeds, step)]


def turned(candidate: Candidate) -> Candidate:
    """Return a candidate with the opposite verdict, if its picture is one to be wrong about."""
    if Draws("wrong", candidate.fingerprint).uniform(1).item() >= WRONG:
        return candidate
    right = candidate.predicted == candidate.emotion
    other = MIKELS8[(MIKELS8.index(candidate.emotion) + 4) % len(MIKELS8)]
    sign = -1 if right else 1
    return dataclasses.replace(
        candidate,
        predicted=other if right else candidate.emotion,
        predicted_valence=sign * candidate.valence,
        predicted_arousal=sign * candidate.arousal,
        confidence=1 - candidate.confidence,
    )


def main(
    out: Annotated[Path, typer.Option(help="Folder of the study; goes on where it was left.")],
    seeds: Annotated[int, typer.Option(min=1, max=len(STUDENT) + 1, help="Seeds 0 .. N - 1.")] = 5,
    steps: Annotated[int, typer.Option(help="Optimizer steps of each arm.")] = 80,
) -> None:
    """Run every arm for every seed that is not done, and print the table."""
    from model_zoo.quiet import quiet_libraries
    from train.distributed import ranks

    quiet_libraries()
    ranks.join()
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "world").exists():
        write_world(out / "world", IMAGES, 0)
    done = out / "results.jsonl"
    rows = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    arms = [(arm, False) for arm in ARMS] + [(arm, True) for arm in JUDGED]
    starts = [begin(out, seed) for seed in range(seeds)]
    for arm, wrong in arms:
        for seed, start in enumerate(starts):
            key = {"seed": seed, "arm": arm, "wrong": wrong}
            if any(key.items() <= row.items() for row in rows):
                continue
            row = key | measure(out, start, seed, arm, wrong=wrong, steps=steps)
            with done.open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(json.dumps(row), flush=True)
    print(table(rows))


def begin(out: Path, seed: int) -> Path:
    """Make a seed's labels, images and starting model; return the model's folder."""
    samples = open_dataset(out / "world")
    data, drawn, run = (out / f"{name}-{seed}" for name in ("labels", "drawn", "start"))
    manifest, pool = data.with_suffix(".jsonl"), drawn.with_suffix(".jsonl")
    labelled = few([sample for sample in samples if sample.split == "train"], seed)
    if not manifest.exists():
        write_manifest(manifest, [*labelled, *(s for s in samples if s.split == "test")])
    if not pool.exists():
        write_manifest(pool, draw(labelled, drawn, seed))
    if not (run / "report.json").exists():
        brought_on(run, manifest, [f"seed={seed}"])
    return run / "model"


def brought_on(run: Path, data: Path, overrides: list[str]) -> dict:
    """Return the report of a run, started or, where it was left unfinished, resumed."""
    if (run / runs.CONFIG).exists():
        return runs.resume(run, [])
    return runs.start(PRESET, run, str(data), overrides)


def few(samples: Sequence[Sample], seed: int) -> list[Sample]:
    """Return `LABELS` samples, as many of each emotion as of any other (one more or less)."""
    places = Draws("labels", seed).permutation(len(samples)).tolist()
    by_emotion = {
        name: [samples[p] for p in places if samples[p].emotion == name] for name in MIKELS8
    }
    return [
        sample
        for number, group in enumerate(by_emotion.values())
        for sample in group[: len(range(number, LABELS, len(MIKELS8)))]
    ]


def draw(labelled: Sequence[Sample], folder: Path, seed: int) -> list[Sample]:
    """Draw with the shipped generator: what one labelled image shows, evoking what another does."""
    folder.mkdir(exist_ok=True)
    requests = [
        ImageRequest(
            prompt=shown.prompt,
            emotion=labelled[place].emotion,
            valence=labelled[place].valence,
            arousal=labelled[place].arousal,
        )
        for turn in range(VARIANTS)
        for shown, place in zip(
            labelled, Draws("felt", seed, turn).permutation(len(labelled)).tolist(), strict=True
        )
    ]
    images = EmoSymPipeline(zoo.load(MODEL)).generate(
        requests, seed=seed * len(requests), num_inference_steps=SAMPLING_STEPS
    )
    drawn = []
    for number, (request, image) in enumerate(zip(requests, images, strict=True)):
        path = folder / f"{number:04d}.png"
        image.save(path)
        drawn.append(
            Sample(
                id=path.stem,
                image=path.resolve(),
                split="train",
                source="generated",
                **dataclasses.asdict(request),
            )
        )
    return drawn


def measure(
    out: Path, start: Path, seed: int, arm: str, *, wrong: bool, steps: int
) -> dict[str, float]:
    """Run an arm; return what it understands and what its bank was filled with."""
    changes = ARMS[arm]
    folder = out / f"{arm.replace(' ', '-')}{'-wrong' if wrong else ''}-{seed}"
    overrides = [
        f"model={start}",
        "from_scratch=false",
        f"seed={seed}",
        f"stages=[{{steps: {steps}, cycle: {{compress: 1}}}}]",
    ]
    if changes is not None:
        share = -(-LABELS * VARIANTS // (len(MIKELS8) * PORTIONS))
        cycle = f"{{remember: 1, compress: {-(-steps // PORTIONS)}}}"
        overrides[-1] = f"stages=[{{steps: {steps + PORTIONS}, cycle: {cycle}}}]"
        overrides += [
            f"remember.generated={out / f'drawn-{seed}.jsonl'}",
            f"remember.per_emotion={share}",
            *changes,
        ]
    PHASES["remember"] = WrongJudge if wrong else Remember
    report = brought_on(folder, out / f"labels-{seed}.jsonl", overrides)
    found = report["understanding"]["after"]
    return {name: found[name] for name in TITLES} | (
        {} if changes is None else held(out, folder, seed)
    )


def held(out: Path, folder: Path, seed: int) -> dict[str, float]:
    """Return what a run's bank holds, and how much of it shows what was asked for, by the truth."""
    subjects = {s.prompt: subject_of(s) for s in open_dataset(out / f"labels-{seed}.jsonl")}
    with MemoryBank.open(folder / "bank") as bank:
        synthetic = bank.entries(source="synthetic")
        right = [
            label_of(felt.valence, felt.arousal) == entry.emotion
            for entry in synthetic
            for felt in [oracle(load_image(bank.image_path(entry)), subjects[entry.prompt])]
        ]
        sizes = bank.stats()
    return {
        "real": sizes["real"],
        "synthetic": sizes["synthetic"],
        "right": float(np.mean(right)) if right else None,
    }


def table(rows: Sequence[dict]) -> str:
    """Return, as Markdown, what each arm reaches, and its change against no bank in the same seed.

    Means over seeds with their 95 % interval (Student's t).
    """
    base = {row["seed"]: row for row in rows if row["arm"] == "no bank"}
    lines = ["| arm | judge | seeds | real, synthetic in the bank | right | "]
    lines[0] += " | ".join(f"{title} | change" for title in TITLES.values()) + " |"
    lines.append("|" + "---|" * (5 + 2 * len(TITLES)))
    for arm, wrong in dict.fromkeys((row["arm"], row["wrong"]) for row in rows):
        of = [row for row in rows if (row["arm"], row["wrong"]) == (arm, wrong)]
        cells = [arm, "wrong" if wrong else "right", str(len(of))]
        if "real" in of[0]:
            cells.append(f"{_mean(of, 'real'):.0f}, {_mean(of, 'synthetic'):.0f}")
            cells.append(f"{_mean(of, 'right'):.2f}")
        else:
            cells += ["–", "–"]
        for name in TITLES:
            gains = [row[name] - base[row["seed"]][name] for row in of if row["seed"] in base]
            cells.append(interval([row[name] for row in of]))
            cells.append("–" if arm == "no bank" else interval(gains, sign="+"))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(values: Sequence[float], sign: str = "") -> str:
    """Return the mean and its 95 % interval, e.g. `0.850 ± 0.010`; no interval for one value."""
    mean = f"{np.mean(values):{sign}.3f}"
    if len(values) < 2:
        return mean
    half = STUDENT[len(values) - 2] * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean} ± {half:.3f}"


def _mean(rows: Sequence[dict], name: str) -> float:
    return float(np.mean([row[name] for row in rows if row[name] is not None]))


if __name__ == "__main__":
    typer.run(main)
