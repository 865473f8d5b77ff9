"""`emosym refine`."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emosym.cli.loading import identity, load_pipeline
from emosym.console.options import (
    DEFAULT_MODEL,
    LAST_SEED,
    MOST_IMAGES,
    Arousal,
    AsJson,
    Device,
    Emotion,
    Model,
    Valence,
)
from emosym.console.terminal import print_facts, print_json, print_table, progress, signed
from emosym.errors import UserError
from emosym.records import ImageRequest

if TYPE_CHECKING:
    from PIL import Image

    from emosym.inference.refine import Drawing, Refinement
    from model_zoo.judges.remote import RemoteModel

MOST_ROUNDS = 100
SELF = "self"
"""The judge that is the drawing model itself."""


def refine(
    out: Annotated[Path, typer.Option(help="New folder for best.png and trace.json.")],
    prompt: Annotated[str, typer.Option(help="What the image shows; no rewrite may drop it.")] = "",
    emotion: Emotion = None,
    valence: Valence = None,
    arousal: Arousal = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=MOST_ROUNDS, help="Most rounds; default: 3.")
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=2, max=MOST_IMAGES // MOST_ROUNDS, help="Images a round; default: 8."),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=6,
            help="An image is near enough when valence and arousal together miss by less than twice"
            " this; 0: none is. Default: 0.5.",
        ),
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            min=1, max=MOST_IMAGES, help="Draw so many in one round instead, and rewrite nothing."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LAST_SEED, help="Seed of the first image.")] = 0,
    guidance: Annotated[
        float | None, typer.Option(help="How hard to follow the request; default: the model's.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps; default: the model's.")] = None,
    judge: Annotated[
        str,
        typer.Option(
            help="What judges and rewrites: self, a model's name or folder, or the URL of a server"
            " that speaks OpenAI's chat completions; its key comes from EMOSYM_JUDGE_KEY."
        ),
    ] = SELF,
    judge_model: Annotated[
        str | None, typer.Option(help="Name of the model behind a URL given as --judge.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep every image, by its seed.")] = False,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Draw, judge, criticise, rewrite the prompt and draw again, and keep the best image.

    Valence and arousal (or an emotion, which brings its own) are asked for in every round; the
    words that change say colour, light, weather or setting. best.png came nearest in the eyes of
    the judge; `emosym generate` draws it again from its prompt and its seed. trace.json tells all.
    """
    from data_tools.staging import staged_folder, write_json
    from emosym.cli.drawing import png_of
    from emosym.inference import refine as refining
    from emosym.inference.pipeline import check_sampling

    request = refining.check_request(
        ImageRequest(prompt=prompt, emotion=emotion, valence=valence, arousal=arousal),
        rewritten=best_of is None,
    )
    check_sampling(steps, guidance)
    looped = {"rounds": rounds, "images": images, "epsilon": epsilon}
    looped = {name: value for name, value in looped.items() if value is not None}
    if best_of is not None:
        _refuse(looped)
    remote = _remote(judge, judge_model)
    total = best_of or (rounds or refining.ROUNDS) * (images or refining.IMAGES)
    with staged_folder(out) as stage, progress("refining", total) as bar:
        pipeline = load_pipeline(model, device)
        critic = remote or (pipeline if judge == SELF else load_pipeline(judge, device))
        maker = identity(model)
        done = count(1)

        def save(name: str, words: str, own: int, image: Image.Image) -> None:
            drawn = replace(request, prompt=words)
            data = png_of(image, drawn, own, pipeline, guidance, steps, maker)
            (stage / f"{name}.png").write_bytes(data)

        def show(words: str, drawing: Drawing, image: Image.Image) -> None:
            bar(next(done), total)
            if keep:
                save(str(drawing.seed), words, drawing.seed, image)

        common = {"seed": seed, "guidance": guidance, "steps": steps, "show": show}
        if best_of is None:
            found = refining.refine(pipeline, critic, request, **looped, **common)
        else:
            found = refining.best_of(pipeline, critic, request, best_of, **common)
        last, drawing = found.best
        save("best", last.prompt, drawing.seed, found.image)
        trace = {
            "image": str(out / "best.png"),
            "model": maker,
            "judge": f"{judge} {judge_model}" if remote else _identity(judge, maker),
            **found.to_dict(),
        }
        write_json(stage / "trace.json", trace)
    if as_json:
        print_json(trace)
    else:
        _print(found, out)


def _refuse(looped: dict[str, object]) -> None:
    """Raise UserError for the first option that would change nothing beside --best-of."""
    for name in looped:
        raise UserError(
            f"--{name} has nothing to act on",
            got="--best-of, which draws one round",
            fix="leave one of them out",
        )


def _remote(judge: str, judge_model: str | None) -> RemoteModel | None:
    """Return the client of a judge at a URL, and None for one that is here."""
    if not judge.lower().startswith(("http://", "https://")):
        if judge_model is not None:
            raise UserError(
                "--judge-model has nothing to act on",
                got=f"--judge {judge}",
                fix="give the URL of a server as --judge, or leave it out",
            )
        return None
    if judge_model is None:
        raise UserError("a judge at a URL needs its model's name", fix="give --judge-model")
    from model_zoo.judges.remote import RemoteModel

    return RemoteModel(judge, judge_model)


def _identity(judge: str, maker: str) -> str:
    return maker if judge == SELF else identity(judge)


def _print(found: Refinement, out: Path) -> None:
    rows = []
    for number, one in enumerate(found.rounds, start=1):
        nearest = one.drawings[one.best]
        suggested = one.critique.suggestions if one.critique else ()
        rows.append(
            (
                str(number),
                one.prompt or "-",
                f"{one.mean_error:.2f}",
                f"{nearest.error:.2f}",
                signed(nearest.valence),
                signed(nearest.arousal),
                ", ".join(suggested) or "-",
                one.kept or "-",
            )
        )
    print_table(
        ("round", "prompt", "mean error", "least", "valence", "arousal", "suggested", "why kept"),
        rows,
        title=f"stopped: {found.stopped}",
    )
    last, drawing = found.best
    print_facts(
        {
            "wanted": _affect(found.request.valence, found.request.arousal),
            "judged": _affect(drawing.valence, drawing.arousal),
            "prompt": last.prompt or "-",
            "seed": drawing.seed,
        },
        title=str(out / "best.png"),
    )


def _affect(valence: float | None, arousal: float | None) -> str:
    return f"valence {signed(valence)}, arousal {signed(arousal)}"
