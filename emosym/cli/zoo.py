"""`emosym zoo ...`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from emosym.console.options import AsJson, Device, Plugins
from emosym.console.progress import progress
from emosym.console.tables import print_facts, print_table
from emosym.console.terminal import print_json
from emosym.errors import UserError
from emosym.files import write_file

NO_WEIGHTS = "not installed: train them"
NO_LICENSE = "not stated; see the licenses of its backbone and its decoder"

app = typer.Typer(help="The models of this installation.", no_args_is_help=True)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the models by name."""
    from model_zoo import catalogue

    records = [
        {
            "name": name,
            "description": catalogue.preset(name)["description"],
            "weights": _folder(name),
        }
        for name in catalogue.members()
    ]
    if as_json:
        print_json(records)
        return
    print_table(
        ("name", "description", "weights"),
        [(r["name"], r["description"], r["weights"] or NO_WEIGHTS) for r in records],
    )


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="A name of `emosym zoo list`, or a model folder.", metavar="MODEL")
    ],
    as_json: AsJson = False,
) -> None:
    """Show a model's parts, its license, its hash, its files and its model card."""
    from model_zoo import catalogue

    preset = catalogue.preset(name) if name in catalogue.members() else None
    folder = _folder(name) if preset else str(catalogue.folder_of(name))

    from model_zoo.quiet import quiet_libraries

    quiet_libraries()
    import dataclasses

    from model_zoo import description, zoo
    from model_zoo.card import license_of

    path = Path(folder) if folder else None
    record: dict[str, Any] = {"name": name, "preset": preset, "weights": folder}
    record["files"] = zoo.model_files(path) if path else {}
    record["card"] = text = description.card(path) if path else None
    record["model"] = dataclasses.asdict(zoo.read_config(path)) if path else None
    record["parts"] = description.parts(path) if path else []
    record["hash"] = zoo.fingerprint(path) if path else None
    record["license"] = license_of(text)
    if as_json:
        print_json(record)
        return
    import yaml
    from rich.markdown import Markdown

    from emosym.console.terminal import console

    about = {name: preset} if preset else {name: record["model"]}
    print(yaml.safe_dump(about, sort_keys=False), end="")
    if path is None:
        print_facts({"weights": NO_WEIGHTS})
        return
    columns = ("part", "architecture", "parameters", "dtype")
    rows = [
        (one["name"], one["architecture"] or "", f"{one['parameters']:,}", one["dtype"])
        for one in record["parts"]
    ]
    print_table(columns, rows)
    about = {"folder": folder, "license": record["license"] or NO_LICENSE, "hash": record["hash"]}
    print_facts(about)
    unlisted = {path: hash_ for path, hash_ in record["files"].items() if hash_ not in (text or "")}
    if unlisted:
        print_facts(unlisted, title="files and their SHA-256")
    if text is not None:
        console().print(Markdown(text, hyperlinks=False))


@app.command()
def compose(
    out: Annotated[Path, typer.Argument(help="New model folder.")],
    backbone: Annotated[
        str,
        typer.Option(help="Qwen-VL folder or hub id; or a model, whose understander is used."),
    ],
    decoder: Annotated[
        str,
        typer.Option(help="Model whose decoder is used, or diffusers folder or hub id."),
    ] = "emosym-tiny",
    reasoning_tokens: Annotated[
        int | None,
        typer.Option(min=0, help="Reasoning tokens of a new reasoner; default: 8."),
    ] = None,
    min_pixels: Annotated[
        int | None, typer.Option(min=1, help="Minimum number of pixels of an input image.")
    ] = None,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of pixels of an input image.")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, help="Side of generated images in pixels; default: the decoder's."),
    ] = None,
    timestep_spacing: Annotated[
        Literal["leading", "trailing", "linspace"] | None,
        typer.Option(help="Times of sampling steps; default: those of the decoder's own pipeline."),
    ] = None,
    conditioner: Annotated[
        Literal["word", "connector"],
        typer.Option(help="Condition of the decoder: one pseudo-word, or a token for each state."),
    ] = "word",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the new weights.")] = 0,
) -> None:
    """Combine a backbone and a decoder into a model that can be trained.

    Reasoning tokens and heads have random weights, unless the understander is that of a model.
    """
    from model_zoo.quiet import quiet_libraries

    quiet_libraries()
    from model_zoo import catalogue, zoo
    from model_zoo.compose import compose as composed

    if (min_pixels is None) != (max_pixels is None) or (min_pixels or 0) > (max_pixels or 0):
        raise UserError(
            "--min-pixels and --max-pixels go together", got=f"{min_pixels} and {max_pixels}"
        )
    pixels = None if min_pixels is None or max_pixels is None else (min_pixels, max_pixels)
    # Reading and writing the weights of a large model takes minutes each.
    print("loading backbone and decoder", file=sys.stderr, flush=True)
    model = composed(
        backbone,
        decoder,
        reasoning_tokens=reasoning_tokens,
        conditioner=conditioner,
        pixels=pixels,
        image_size=image_size,
        timestep_spacing=timestep_spacing,
        seed=seed,
    )
    print("writing the model", file=sys.stderr, flush=True)
    print(zoo.save(model, out))
    print(_next_steps(out, trained=catalogue.is_model(backbone)))


@app.command()
def space(
    model: Annotated[str, typer.Argument(help="Name in the model zoo, or a model folder.")],
    data: Annotated[Path, typer.Option(help="A manifest, or the folder of a dataset.")],
    plugins: Plugins = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing space.")
    ] = False,
    device: Device = None,
) -> None:
    """Fit an emotion space: the distribution of a model's states on images of each emotion.

    It is written to the model's folder. This changes the hash by which memory banks identify the
    model.
    """
    from model_zoo import catalogue

    folder = catalogue.folder_of(model)

    from model_zoo.quiet import quiet_libraries

    quiet_libraries()
    import safetensors.torch

    from data_tools.dataset import open_dataset
    from emosym.inference.emotion_space_fitting import choose_samples, fit_emotion_space
    from emosym.inference.placement import usable_device
    from emosym.pictures.loading import load_image
    from model_zoo import zoo

    path = folder / zoo.EMOTION_SPACE
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists", fix="the model has a space; --overwrite replaces it")
    samples = choose_samples(open_dataset(data))
    place = usable_device(device)
    made = zoo.load(folder, with_space=False).to(place)
    with progress("embedding", len(samples)) as show:
        found = fit_emotion_space(
            made,
            samples,
            lambda sample: load_image(sample.image),
            show=lambda done: show(done, len(samples)),
        )
    write_file(path, safetensors.torch.save(found.state_dict()))
    print(path)


def _next_steps(folder: Path, trained: bool) -> str:
    """Return the commands that follow `compose`."""
    setting = shlex.quote(f"model={folder}")
    shown, trains = shlex.quote(str(folder)), shlex.quote(f"OVERRIDES={setting}")
    what = "The decoder's conditioner is new" if trained else "Reasoning tokens and heads are new"
    target = "train-joint" if trained else "train-compress"
    return (
        f"{what}: train it before use, for example\n"
        f"  make {target} DATA=path/to/EmoSet {trains}\n"
        f"What is in it:\n"
        f"  emosym zoo show {shown}"
    )


def _folder(name: str) -> str | None:
    """Return the folder of a model's weights; None if they are not installed."""
    from model_zoo import catalogue

    try:
        return str(catalogue.folder_of(name))
    except UserError:
        return None
