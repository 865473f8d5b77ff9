"""What is measured inside a process that trains; tests assert on what comes back."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
import itertools
import json
import math
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import train.__main__
import train.run
from data_tools.dataset import open_dataset
from data_tools.questions.build import build_questions
from emosym.config import load_config
from emosym.errors import UserError
from emosym.inference.pipeline import EmoSymPipeline
from emosym.models.losses import language_loss
from emosym.models.model import EmoSym
from emosym.records import Question
from emosym.tasks.base import Answer, Reward, label_value
from emosym.tasks.registry import REWARDS
from model_zoo import catalogue, zoo
from train.data.base_texts import base_texts
from train.data.run_data import RunData
from train.distributed import ranks
from train.logs.metrics import Logs
from train.micro_batches import MicroBatch, split
from train.phases.base import StepOutput
from train.phases.compress import Compress
from train.phases.registry import PHASES, train_config
from train.schedule import learning_rate
from train.trainer import Trainer

TIMING = ("samples_per_s", "host_memory_gb", "gpu_memory_gb")
TOY = {"toy": 1.0, "format": 0, "emotion": 0, "affect_threshold": 0}
"""Only the reward of `toy_reward`."""


def compress(steps: int, **sections: Any) -> dict[str, Any]:
    """Return sections of a preset that has only compress steps."""
    return {"stages": [{"steps": steps, "cycle": {"compress": 1}}], **sections}


def settings(model: Path, data: Path, /, **sections: Any) -> dict[str, Any]:
    """Return a preset of small sizes; `sections` are merged over it."""
    optimizer = {"learning_rate": 2e-3, "weight_decay": 0.1, "warmup_steps": 2}
    whole: dict[str, Any] = {
        "model": str(model),
        "data": {"path": str(data)},
        "engine": {"understander": optimizer, "generator": optimizer, "autoencoder": optimizer},
        "compress": {"batch_size": 4},
        "instruct": {"batch_size": 4},
        "verify_posterior": {"batch_size": 4},
        "verify_grpo": {"batch_size": 2, "num_generations": 2, "max_completion_length": 6},
        "generate": {"batch_size": 4},
        "reinforce": {"batch_size": 2, "num_images_per_prompt": 2, "num_inference_steps": 2},
        "autoencode": {"batch_size": 4},
        "remember": {
            "per_emotion": 1,
            "real": 2,
            "admission": {
                "top_quantile": 1.0,
                "max_affect_error": 6.0,
                "near_copy_quantile": 1.0,
            },
        },
        "evaluate": {"before": False, "images": 0, "requests": 0, "grids": 0},
        "save_every": 100,
    }
    return _merge(whole, sections)


def write_model(folder: Path, tokens: int = 4, conditioner: str = "connector") -> None:
    """Write a random model of K `tokens`: the tiny member's architecture, narrower still."""
    spec = copy.deepcopy(catalogue.preset("emosym-tiny"))
    spec["model"] |= {"reasoning_tokens": tokens, "hidden": 24, "steps": 4}
    spec["model"]["conditioner"] = conditioner
    spec["backbone"]["text_config"] |= {
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 4, 4]},
    }
    spec["backbone"]["vision_config"] |= {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 2,
        "fullatt_block_indexes": [0],
        "out_hidden_size": 48,
    }
    spec["transformer"] |= {
        "num_layers": 2,
        "attention_head_dim": 16,
        "num_attention_heads": 2,
        "joint_attention_dim": 32,
        "caption_projection_dim": 32,
        "pooled_projection_dim": 32,
    }
    spec["text_encoder"] |= {"d_model": 32, "d_kv": 16, "num_heads": 2, "num_layers": 1, "d_ff": 48}
    spec["vae"] |= {"block_out_channels": [8, 8, 8], "norm_num_groups": 4}
    zoo.save(zoo.build_preset(spec, base_texts(1500, 0), 0), folder)


@contextlib.contextmanager
def trainer(run: Path, whole: dict[str, Any], images: int | None = None) -> Iterator[Trainer]:
    """Give a trainer in a run folder, at the run's last checkpoint; it sees `images` images."""
    config = load_config(train_config(), None, base=whole)
    folder = catalogue.folder_of(config.model)
    samples = [s for s in open_dataset(Path(config.data.path)) if s.split == "train"][:images]
    if ranks.is_first():
        run.mkdir(parents=True, exist_ok=True)
    ranks.barrier()
    train.run.check_sizes(config)
    questions = build_questions(samples, config.data.tasks, config.seed)
    data = RunData(samples, questions)
    made = Trainer(config, run, zoo.load(folder), data, zoo.fingerprint(folder))
    made.restore()
    try:
        yield made
    finally:
        made.close()


def weights(model: EmoSym) -> dict[str, torch.Tensor]:
    """Return a copy of all weights, by name."""
    return {name: value.detach().clone() for name, value in model.named_parameters()}


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Return `over` merged into `base`; a cycle replaces the other whole."""
    merged = dict(base)
    for name, value in over.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = _merge(base[name], value) if both else value
    return merged


@contextlib.contextmanager
def toy_reward() -> Iterator[None]:
    """Reward letters 'a' in an answer: a random policy earns some, and can earn more."""

    def raw(text: str, question: Question) -> Answer:
        return Answer(False, {"text": text})

    def toy(answer: Answer, question: Question) -> float:
        return min((label_value(answer.values["text"]) or "").count("a"), 4) / 4

    toys = {"toy": Reward(toy)}
    with patch.dict(REWARDS, toys), patch("train.phases.verify_grpo.parse", raw):
        yield


def outcome(run: Path, wholes: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Run each named preset to its end; return weights, rows and bank of each."""
    found = {}
    for name, whole in wholes.items():
        with toy_reward(), trainer(run / name, whole) as made:
            before = weights(made.context.model)
            made.train()
            bank = made.context.memory.bank
            found[name] = {
                "before": before,
                "weights": weights(made.context.model),
                "bank": bank and [dataclasses.asdict(entry) for entry in bank.entries()],
            }
        ranks.barrier()
        found[name]["rows"] = rows(run / name)
    return found


def rows(run: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics without what a clock or the machine decides."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMING} for row in found]


def against_plain_torch(
    run: Path, whole: dict[str, Any], rounds: int, clip: float
) -> dict[str, float]:
    """Step every phase of a preset with DeepSpeed and with plain PyTorch; return how they differ.

    The twin is a deep copy of the model under `torch.optim.AdamW`, one optimizer a part. A
    parameter without a gradient has a zero gradient there: ZeRO's flat buffers know no other.
    The twin clips at `clip`, whatever the preset says.
    """
    with toy_reward(), trainer(run, whole) as made:
        before = weights(made.context.model)
        model = copy.deepcopy(made.context.model)
        context = dataclasses.replace(
            made.context, model=model, parts={name: getattr(model, name) for name in EmoSym.PARTS}
        )
        phases = {name: PHASES[name](context) for name in made.phases}
        engine = made.config.engine
        owned = {part: trained(getattr(model, part)) for part in made.engines}
        adam = {
            part: torch.optim.AdamW(
                parameters,
                lr=getattr(engine, part).learning_rate,
                weight_decay=getattr(engine, part).weight_decay,
            )
            for part, parameters in owned.items()
        }
        found: dict[str, float] = {"movement": 0.0, "difference": 0.0, "norm": 0.0}
        for step in range(rounds * len(phases)):
            name = made.schedule.phase_at(step)
            rows = made._step(step, name)
            made.state.step += 1

            phase = phases[name]
            accumulation = engine.gradient_accumulation_steps
            key = (made.config.seed, name, step)
            [batches] = split(made._batch(step, name), 1, accumulation, key)
            for batch, prepared in zip(batches, phase.prepare(batches), strict=True):
                batch.prepared = prepared
            for part in phase.owns:
                for parameter in owned[part]:
                    parameter.grad = torch.zeros_like(parameter)
            for batch in batches:
                (phase.loss(batch).loss / accumulation).backward()
            norms = []
            for part in phase.owns:
                config = getattr(engine, part)
                norms.append(torch.nn.utils.clip_grad_norm_(owned[part], clip or math.inf).item())
                moves = [i for i, n in enumerate(made.schedule.phases) if part in phases[n].owns]
                for group in adam[part].param_groups:
                    group["lr"] = learning_rate(config, moves.index(step), len(moves))
                adam[part].step()
            model.zero_grad()
            norm = math.hypot(*norms)
            found["norm"] = max(found["norm"], abs(rows["grad_norm"] - norm) / norm)
            found[name] = norm
        twin = weights(model)
        for name, value in weights(made.context.model).items():
            found["difference"] = max(found["difference"], (value - twin[name]).abs().max().item())
            found["movement"] = max(found["movement"], (value - before[name]).abs().max().item())
        return found


def trained(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """Return the parameters of a module that train."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def many(probe: Any, calls: dict[str, tuple]) -> dict[str, Any]:
    """Return what a probe returns for each set of arguments, from one process."""
    return {name: probe(*args) for name, args in calls.items()}


def moved(run: Path, whole: dict[str, Any]) -> list[tuple[str, set[str]]]:
    """Run a preset step by step; return each step's phase and the weights it changed by a bit."""
    found = []
    with toy_reward(), trainer(run, whole) as made:
        made.context.memory.fill(made.context.training_set)
        for step, phase in enumerate(made.schedule.phases):
            before = weights(made.context.model)
            made._step(step, phase)
            made.state.step += 1
            after = weights(made.context.model)
            changed = {n for n in before if not torch.equal(bits(before[n]), bits(after[n]))}
            found.append((phase, changed))
    return found


def bits(value: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a tensor: -0 is not 0 here, and NaN is NaN."""
    return value.contiguous().view(torch.uint8)


def learned(run: Path, whole: dict[str, Any], images: int) -> dict[str, Any]:
    """Train on the first few images only; return the rows, and what the model says of them."""
    with toy_reward(), trainer(run, whole, images) as made:
        samples = made.context.training_set.samples
        made.train()
        pipeline = EmoSymPipeline(made.context.model.eval())
        said = pipeline.understand([sample.image for sample in samples], answer=False)
    pairs = list(zip(samples, said, strict=True))
    return {
        "rows": rows(run),
        "accuracy": sum(s.emotion == u.emotion for s, u in pairs) / len(pairs),
        "v_error": max(abs(s.valence - u.affect.valence) for s, u in pairs),
        "a_error": max(abs(s.arousal - u.affect.arousal) for s, u in pairs),
    }


def parted(run: Path, whole: dict[str, Any], second: float) -> dict[str, Any]:
    """Train on a reward that rises by 1 a step and a second judge that moves by `second` a step."""

    def scripted(self: Trainer, step: int, name: str) -> dict[str, float]:
        return {"reward": float(step), "second_judge": second * step}

    told = None
    with patch.object(Trainer, "_step", scripted), trainer(run, whole) as made:
        try:
            made.train()
        except UserError as error:
            told = str(error)
        done = made.state.step
    with trainer(run, whole) as again:
        return {"told": told, "done": done, "saved": again.state.step, "rows": rows(run)}


def refused(run: Path, whole: dict[str, Any]) -> str | None:
    """Return why a run cannot begin; None where it can."""
    try:
        with trainer(run, whole):
            return None
    except UserError as error:
        return str(error)


def failed(run: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Train into an error; return its message and which step is saved."""
    told = None
    with trainer(run, whole) as made:
        try:
            made.train()
        except UserError as error:
            told = str(error)
        done = made.state.step
    with trainer(run, whole) as again:
        return {"told": told, "done": done, "saved": again.state.step}


def refitted(run: Path, whole: dict[str, Any]) -> dict[str, Any]:
    """Take a run's steps; return what moved, its rows, and its model's configuration and folder."""
    with trainer(run, whole) as made:
        before = weights(made.context.model)
        made.train()
        model = made.context.model
        after = weights(model)
        zoo.save(model.eval(), run / "model")
        context = after["understander.reasoner.context"]
        return {
            "rows": rows(run),
            "config": dataclasses.asdict(model.config),
            "before": before,
            "moved": {name for name in before if not torch.equal(before[name], after[name])},
            "saved": torch.equal(
                zoo.load(run / "model").understander.reasoner.context, context.cpu()
            ),
            "hash": made.state.model_hash,
        }


def decoded(run: Path, whole: dict[str, Any], images: int) -> dict[str, Any]:
    """Train on the first few images; return the loss of each text given its own states, and given
    those of the next image."""
    with trainer(run, whole, images) as made:
        made.train()
        context = made.context
        samples = context.training_set.samples
        tokens = context.image_prompts(
            [context.training_set.image(sample.image) for sample in samples]
        )
        states = context.model.read(tokens).h_ctx
        text = context.model.processor.answers([sample.knowledge for sample in samples])
        losses = [
            language_loss(context.reference.decode_states(given, text), text.ids, text.mask).item()
            for given in (states, states.roll(1, 0))
        ]
    return {"rows": rows(run), "own": losses[0], "other": losses[1]}


def poison_loss() -> None:
    """Make the loss of the second micro-batch of compress's third step NaN."""
    _poison(5, lambda loss: loss * math.nan)


def poison_gradient() -> None:
    """Make its gradient NaN, and leave the loss as it is."""
    _poison(5, lambda loss: loss + (loss * 0).sqrt() * 0)


def poison_third() -> None:
    """Make the loss of the third call of compress NaN."""
    _poison(2, lambda loss: loss * math.nan)


def terminate_at_third() -> None:
    """Send this process SIGTERM as soon as it has done three steps: sooner than a test could."""
    row = Logs.row

    def logged(self: Logs, step: int, *rest: Any) -> None:
        row(self, step, *rest)
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    Logs.row = logged


def no_space() -> None:
    """Let no file grow beyond 300 kB: less than a checkpoint, more than a line."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def sign(folder: Path) -> None:
    """Write the hashes that a checkpoint's files have now, as who changed them would."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n"
        for path in paths
        if path.name != "SHA256SUMS"
    ]
    (folder / "SHA256SUMS").write_text("".join(lines))


def _poison(call: int, spoil: Any) -> None:
    calls = itertools.count()
    loss = Compress.loss

    def spoiled(self: Compress, batch: MicroBatch) -> StepOutput:
        found = loss(self, batch)
        return found._replace(loss=spoil(found.loss)) if next(calls) == call else found

    Compress.loss = spoiled
