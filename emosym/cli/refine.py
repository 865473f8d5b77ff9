"""`emosym refine`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from emosym.affect.scales import Affect
from emosym.cli.loading import load_pipeline, model_hash
from emosym.console.options import (
    DEFAULT_MODEL,
    MOST_IMAGES,
    Arousal,
    AsJson,
    Device,
    Emotion,
    GuidanceScale,
    InferenceSteps,
    Model,
    Seed,
    Valence,
)
from emosym.console.progress import progress
from emosym.console.tables import print_facts, print_table, signed_affect
from emosym.console.terminal import print_json
from emosym.errors import UserError
from emosym.records import ImageRequest

if TYPE_CHECKING:
    from PIL import Image

    from emosym.inference.refinement import Drawing, Refinement, StateMix
    from model_zoo.judges.remote import RemoteModel

MOST_ROUNDS = 100
SELF = "self"
"""Value of --judge for the generating model itself."""


def refine(
    out: Annotated[Path, typer.Option(help="New folder for best.png and trace.json.")],
    prompt: Annotated[str, typer.Option(help="What the image shows; rewrites keep it.")] = "",
    emotion: Emotion = None,
    valence: Valence = None,
    arousal: Arousal = None,
    feedback: Annotated[
        Literal["words", "state", "both"] | None,
        typer.Option(
            help="What changes after a round: words of the prompt, the state that conditions the"
            " decoder, or both. [words]"
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_ROUNDS, help="Maximum rounds; default: 3."),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=2, max=MOST_IMAGES // MOST_ROUNDS, help="Images in a round; default: 8."),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=6,
            help="Stop at an image whose errors of valence and arousal sum to less than twice this;"
            " 0: never stop. Default: 0.5.",
        ),
    ] = None,
    best_of: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MOST_IMAGES,
            help="Generate this many images in one round, without feedback.",
        ),
    ] = None,
    seed: Seed = 0,
    guidance_scale: GuidanceScale = None,
    num_inference_steps: InferenceSteps = None,
    judge: Annotated[
        str,
        typer.Option(
            help="What judges and rewrites: self, a model's name or folder, or the URL of a server"
            " with OpenAI's chat completions API; its key is read from EMOSYM_JUDGE_KEY and sent"
            " only to the URL in EMOSYM_JUDGE_URL."
        ),
    ] = SELF,
    judge_model: Annotated[
        str | None, typer.Option(help="Name of the model behind a URL given as --judge.")
    ] = None,
    judge_max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Longest answer of that model in tokens; default: 2048."),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep every image, by its seed.")] = False,
    model: Model = DEFAULT_MODEL,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Generate, judge, change the prompt or the state, generate again; keep the best image.

    Every round requests the same valence and arousal (or an emotion, which implies them). Rewrites
    change words about colour, light, weather or setting. A state is mixed from those of the round's
    images and of the emotion space, towards what the images lack. best.png is the image with the
    least error by the judge; `emosym generate` makes it again from its prompt and seed, unless it
    is drawn from a mixed state. trace.json has all rounds.
    """
    from data_tools.files.staging import staged_folder, write_json
    from emosym.cli.drawing import png_of, warn_untrained
    from emosym.inference import refine as refining
    from emosym.inference.inputs import check_sampling

    request = refining.check_request(
        ImageRequest(prompt=prompt, emotion=emotion, affect=Affect.optional(valence, arousal)),
        rewritten=best_of is None and feedback != "state",
    )
    check_sampling(num_inference_steps, guidance_scale)
    if best_of is not None:
        unused = {"--rounds": rounds, "--images": images, "--epsilon": epsilon}
        _check_unused({"--feedback": feedback, **unused})
    remote = _remote(judge, judge_model, judge_max_tokens)
    rounds = refining.ROUNDS if rounds is None else rounds
    images = refining.IMAGES if images is None else images
    if best_of is None:
        feedback = feedback or "words"
        epsilon = refining.EPSILON if epsilon is None else epsilon
    total = best_of or rounds * images
    with staged_folder(out) as stage, progress("refining", total) as bar:
        pipeline = load_pipeline(model, device)
        warn_untrained(pipeline)
        critic = remote or (pipeline if judge == SELF else load_pipeline(judge, device))
        hashed = model_hash(model)
        done = count(1)

        def save(
            name: str, words: str, state: StateMix | None, image_seed: int, image: Image.Image
        ) -> None:
            data = png_of(
                image,
                replace(request, prompt=words),
                image_seed,
                pipeline,
                guidance_scale,
                num_inference_steps,
                hashed,
                mixed_state=state is not None,
            )
            (stage / f"{name}.png").write_bytes(data)

        def show(words: str, state: StateMix | None, drawing: Drawing, image: Image.Image) -> None:
            bar(next(done), total)
            if keep:
                save(str(drawing.seed), words, state, drawing.seed, image)

        if feedback is not None and epsilon is not None:
            result = refining.refine(
                pipeline,
                critic,
                request,
                feedback=feedback,
                rounds=rounds,
                images=images,
                epsilon=epsilon,
                seed=seed,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                show=show,
            )
        else:
            result = refining.best_of(
                pipeline,
                critic,
                request,
                total,
                seed=seed,
                guidance_scale=guidance_scale,
                num_inference_steps=num_inference_steps,
                show=show,
            )
        last, drawing = result.best
        save("best", last.prompt, last.state, drawing.seed, result.image)
        trace = {
            "image": str(out / "best.png"),
            "model": hashed,
            "feedback": feedback,
            "epsilon": epsilon,
            "judge": f"{judge} {judge_model}" if remote else _judge_hash(judge, hashed),
            **result.to_dict(),
        }
        write_json(stage / "trace.json", trace)
    if as_json:
        print_json(trace)
    else:
        _print(result, out, epsilon)


def _check_unused(options: Mapping[str, object]) -> None:
    """Raise UserError for an option that has no effect with --best-of."""
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{name} has no effect with --best-of", fix="leave one of them out")


def _remote(
    judge: str, judge_model: str | None, judge_max_tokens: int | None
) -> RemoteModel | None:
    """Return the client of a judge at a URL; None for another judge."""
    if not judge.lower().startswith(("http://", "https://")):
        given = {"--judge-model": judge_model, "--judge-max-tokens": judge_max_tokens}
        for option, value in given.items():
            if value is not None:
                raise UserError(
                    f"{option} has no effect without a URL",
                    got=f"--judge {judge}",
                    fix="give the URL of a server as --judge, or leave it out",
                )
        return None
    if judge_model is None:
        raise UserError("a judge at a URL needs the name of its model", fix="give --judge-model")
    from model_zoo.judges.remote import RemoteModel

    return RemoteModel(judge, judge_model, max_tokens=judge_max_tokens)


def _judge_hash(judge: str, hashed: str) -> str:
    """Return the hash of the judge's files; `hashed` is that of the generating model."""
    return hashed if judge == SELF else model_hash(judge)


def _print(result: Refinement, out: Path, epsilon: float | None) -> None:
    rows = []
    for number, one in enumerate(result.rounds, start=1):
        nearest = one.drawings[one.best]
        suggested = one.critique.suggestions if one.critique else ()
        rows.append(
            (
                str(number),
                one.prompt or "-",
                _affect(one.state.affect) if one.state else "of the request",
                f"{one.mean_error:.2f}",
                f"{nearest.error:.2f}",
                *signed_affect(nearest.affect),
                ", ".join(suggested) or "-",
                one.kept or "-",
            )
        )
    print_table(
        (
            "round",
            "prompt",
            "state",
            "mean error",
            "least",
            "valence",
            "arousal",
            "suggested",
            "kept",
        ),
        rows,
        title=f"stopped: {result.stopped}{_bound(result, epsilon)}",
    )
    last, drawing = result.best
    print_facts(
        {
            "requested": _affect(result.request.affect),
            "judged": _affect(drawing.affect),
            "prompt": last.prompt or "-",
            "seed": drawing.seed,
        },
        title=str(out / "best.png"),
    )


def _bound(result: Refinement, epsilon: float | None) -> str:
    """Return what is near enough, for the reason of a stop; empty where nothing is."""
    if not epsilon:
        return ""
    error = result.best[1].error
    relation = "below" if error < 2 * epsilon else "not below"
    return (
        f"; the errors of valence and arousal sum to {error:.2f}, {relation} {2 * epsilon:.2f}"
        " (twice --epsilon)"
    )


def _affect(affect: Affect | None) -> str:
    valence, arousal = signed_affect(affect)
    return f"valence {valence}, arousal {arousal}"
