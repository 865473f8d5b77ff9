"""The one loop: a step asks its phase for a loss, and moves the parts that the phase owns."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import torch

from emosym.errors import UserError
from emosym.models.model import EmoSym
from emosym.randomness import Draws
from emosym.records import Question, Sample
from model_zoo.adapters import LoraSpec, add_lora, backbone_layers, decoder_layers, set_dropout
from train import checkpoint
from train.config import TrainConfig
from train.data.dataset import TrainingSet
from train.data.knowledge import KnowledgeEncoder
from train.data.prompt_features import PromptFeatureCache
from train.data.run_data import RunData
from train.distributed import engines, ranks
from train.distributed.ema import WeightAverage
from train.logs import Logs
from train.phases import PHASES
from train.phases.base import MicroBatch, PhaseContext, freeze
from train.phases.reinforce import hacking
from train.phases.remember.bank_session import BankSession
from train.reference import FrozenModule, ReferenceModel
from train.schedule import Schedule, learning_rate
from train.starting import identity, refit


class Interrupted(Exception):  # noqa: N818  it is no error
    """The run was asked to stop; its state is saved."""


class Trainer:
    """Trains one model by one schedule of phases, from any checkpoint of the run."""

    def __init__(
        self,
        config: TrainConfig,
        run: Path,
        model: EmoSym,
        material: RunData,
        model_hash: str,
    ) -> None:
        self.config = config
        self.run = run
        self.schedule = Schedule(config.stages, tuple(PHASES))
        used = self.schedule.totals()
        device = ranks.device()
        model = model.to(device).train()
        knowledge = None
        if "compress" in used:
            name = config.compress.knowledge_encoder or model.config.knowledge_encoder
            knowledge = KnowledgeEncoder(name, model, device)
        changes = refit(model, config.reasoning_tokens, knowledge, config.seed)
        model_hash = identity(model_hash, changes, config.seed)
        for change in changes if ranks.is_first() else []:
            print(change)
        self._freeze(model, used)
        self._adapt(model)
        if config.engine.gradient_checkpointing:
            model.understander.backbone.checkpoint_gradients()
            model.generator.denoiser.checkpoint_gradients()
        reference = ReferenceModel(model)
        bank = run / "bank" if "remember" in used else None
        memory = BankSession(bank, config.remember, model, reference, model_hash)
        self.context = PhaseContext(
            config=config,
            model=model,
            parts={name: getattr(model, name) for name in EmoSym.PARTS},
            training_set=TrainingSet(
                material.samples, material.questions, config.data, config.seed
            ),
            reference=reference,
            start=FrozenModule(model.generator) if "reinforce" in used else None,
            texts=PromptFeatureCache(
                model.generator.denoiser, frozen=not config.generate.train_text_encoder
            ),
            memory=memory,
            knowledge=knowledge,
            device=device,
            save=self.save,
        )
        self.phases = {name: PHASES[name](self.context) for name in used}
        owned = {part for phase in self.phases.values() for part in phase.owns}
        with engines.quiet():
            self.engines = {
                part: engines.make_engine(
                    getattr(model, part), config.engine, getattr(config.engine, part)
                )
                for part in EmoSym.PARTS
                if part in owned
            }
        self.context.parts |= self.engines
        self.averages = self._averages()
        for part, average in self.averages.items() if ranks.is_first() else []:
            print(f"{part}: the run measures and leaves an average of its weights ({average})")
        self.state = checkpoint.State.of_start(ranks.size(), model_hash)
        self._stop = False

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.run / "checkpoints"

    def restore(self) -> None:
        """Go to the run's last checkpoint, or to its beginning when there is none.

        Raises:
            UserError: a checkpoint that cannot be loaded, a schedule that ends before it, a bank
                that is not the run's.
        """
        with ranks.raise_once():
            saved = checkpoint.found(self.checkpoints)
        if saved:
            self.state = checkpoint.load(
                saved[-1],
                self.engines,
                self.averages,
                self.context.memory.waiting,
                self.state.model_hash,
            )
        with ranks.raise_once():
            if self.state.step > len(self.schedule):
                raise UserError(
                    f"the stages end before checkpoint {self.state.name}",
                    got=f"{len(self.schedule)} steps in all",
                    expected=f"at least {self.state.step}",
                    fix="give a stage more steps",
                )
        self.context.memory.restore(self.state.bank_version, self.state.bank_digest)

    def train(self) -> None:
        """Run the steps that are left.

        Raises:
            Interrupted: after SIGTERM or SIGINT, with everything saved.
            UserError: a loss or gradient that is not finite, an image that cannot be read; the
                step is refused, the state before it saved.
            ranks.OtherRankError: the same, on another rank.
        """
        self.context.memory.fill(self.context.training_set)
        total = len(self.schedule)
        logs = Logs(self.run, self.state.step, total, writes=ranks.is_first())
        handlers = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        started, before = time.monotonic(), self.state.seconds
        try:
            while self.state.step < total:
                step, phase = self.state.step, self.schedule.phase_at(self.state.step)
                begun = time.monotonic()
                metrics = self.step()
                self.state.seconds = before + time.monotonic() - started
                pace = self.phases[phase].batch_size / (time.monotonic() - begun)
                logs.row(step, phase, metrics, pace)
                if metrics.get("hacking", 0.0) > hacking.ALARM:
                    self.state.compared.clear()  # who goes on all the same is not stopped at once
                    self.save()
                    raise self._hacked(metrics["hacking"])
                stopping = ranks.any_rank(self._stop)
                if stopping or self.state.step % self.config.save_every == 0:
                    self.save()
                if stopping:
                    raise Interrupted
            self.save()
        finally:
            logs.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def step(self) -> dict[str, float]:
        """Run the next step of the schedule and return what it measured; raises as `train`."""
        name = self.schedule.phase_at(self.state.step)
        metrics = self._step(self.state.step, name)
        self.state.step += 1
        if self.phases[name].owns and self.phases[name].compares:
            metrics["hacking"] = self._compare(*self.phases[name].compares, metrics)
        return metrics

    def _compare(self, reward: str, second: str, metrics: dict[str, float]) -> float:
        """Remember a step's reward and second judge; return how far they have parted lately."""
        seen = self.state.compared
        seen.append([metrics[reward], metrics[second]])
        del seen[: -self.config.reinforce.patience]
        if len(seen) < self.config.reinforce.patience:
            return 0.0
        return hacking.divergence(*zip(*seen, strict=True))

    def save(self) -> None:
        """Write a checkpoint of the state between two steps."""
        if self.context.memory.bank is not None:  # a stage without one must not forget it
            self.state.bank_version = self.context.memory.version
            self.state.bank_digest = self.context.memory.digest()
        checkpoint.save(
            self.checkpoints,
            self.state,
            self.engines,
            self.averages,
            self.context.memory.waiting,
            self.config.keep,
        )

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model be what the run leaves behind: parts that have an average are it."""
        with contextlib.ExitStack() as stack:
            for average in self.averages.values():
                stack.enter_context(average.in_use())
            yield

    def close(self) -> None:
        """Release the bank."""
        self.context.memory.close()

    def _step(self, step: int, name: str) -> dict[str, float]:
        phase = self.phases[name]
        set_dropout(self.context.model, phase.dropout)
        if not phase.owns:  # an ActingPhase
            return phase.run(step, self.schedule.count(name, step))
        total, accumulation = phase.batch_size, self.config.engine.accumulation
        samples = self._batch(step, name)
        micro_rows = self._micro_rows(total)
        self._open([sample for rows in micro_rows for sample in samples[rows]])
        for part in phase.owns:
            done, total_moves = self._moves(part, step), self._moves(part, len(self.schedule))
            optimizer = getattr(self.config.engine, part)
            rate = learning_rate(optimizer, done, total_moves)
            engines.prepare(self.engines[part], optimizer, rate)
        gathered: list[dict[str, float]] = []
        for micro, rows in enumerate(micro_rows, start=1):
            draws = Draws(self.config.seed, name, step)
            # What a model draws for itself (dropout) also follows from the step.
            own = Draws(self.config.seed, name, step, "own", micro, ranks.rank())
            torch.manual_seed(own.generator.initial_seed())
            outcome = phase.loss(MicroBatch(samples[rows], rows, total, draws))
            loss = outcome.loss
            bad = not math.isfinite(loss.item())
            if ranks.any_rank(bad):
                self._refuse(f"loss {loss.item()}", samples[rows] if bad else [])
            self.engines[phase.owns[-1]].backward(loss)
            if micro == accumulation:
                for part in phase.owns:  # all of them before any moves
                    if engines.overflowed(self.engines[part]):
                        first = samples if ranks.is_first() else []
                        self._refuse(f"a gradient of {part} that is not finite", first)
            for part in phase.owns:
                self.engines[part].step()
            gathered.append(
                {"loss": loss.item(), **{k: float(v) for k, v in outcome.metrics.items()}}
            )
        for part in phase.owns:
            if part in self.averages:
                self.averages[part].update()
        metrics = _means(gathered)
        norms = [float(self.engines[part].get_global_grad_norm()) for part in phase.owns]
        return metrics | {"grad_norm": math.hypot(*norms)}

    def _micro_rows(self, total: int) -> list[slice]:
        """Return this rank's rows of the global batch, one slice a micro-batch."""
        accumulation = self.config.engine.accumulation
        share = total // (ranks.size() * accumulation)
        firsts = [(m * ranks.size() + ranks.rank()) * share for m in range(accumulation)]
        return [slice(first, first + share) for first in firsts]

    def _open(self, samples: list[Sample] | list[Question]) -> None:
        """Decode this rank's images before any rank waits for another inside the loss."""
        with self.context.outside():
            for path in (path for sample in samples for path in sample.images):
                self.context.training_set.image(path)

    def _moves(self, part: str, before: int) -> int:
        """Return how many steps before `before` move a part."""
        return sum(
            self.schedule.count(name, before)
            for name, phase in self.phases.items()
            if part in phase.owns
        )

    def _batch(self, step: int, name: str) -> list[Sample] | list[Question]:
        phase = self.phases[name]
        position = self.schedule.count(name, step) * phase.batch_size
        samples = self.context.training_set.take(phase.material, name, position, phase.batch_size)
        if not phase.replays:
            return samples
        memory = self.context.memory
        contrasted = memory.contrast(samples, phase.hard_negatives)
        mixed = memory.mix(contrasted, (self.config.seed, step, memory.version))
        order = Draws(self.config.seed, "mix", step).permutation(len(mixed)).tolist()
        return [mixed[place] for place in order]

    def _refuse(self, what: str, samples: list[Sample]) -> NoReturn:
        """Save the state before this step and leave; the rank that holds `samples` tells why."""
        self.save()
        if not samples:
            raise ranks.OtherRankError
        step = self.state.step
        raise UserError(
            f"step {step} ({self.schedule.phase_at(step)}) was refused",
            got=f"{what} for images {', '.join(sample.id for sample in samples[:8])}",
            fix="the state before it is saved; fix the data, or lower the learning rate and delete"
            f" the newest checkpoint, then {ranks.again(self.run)}",
        )

    def _hacked(self, parted: float) -> Exception:
        if not ranks.is_first():
            return ranks.OtherRankError()
        steps = self.config.reinforce.patience
        return UserError(
            "the reward rises while the second judge falls: the generator fools its judge",
            got=f"{parted:.1f} standard errors apart in {steps} steps (reinforce/hacking)",
            fix="its state is saved: raise reinforce.beta, take another judge, or go on with"
            f" reinforce.patience=0: {ranks.again(self.run)}",
        )

    def _ask_to_stop(self, *_: object) -> None:
        self._stop = True

    def _averages(self) -> dict[str, WeightAverage]:
        """Make the averages that are asked for, from the weights that the run starts with."""
        asked = {part: getattr(self.config.engine, part) for part in EmoSym.PARTS}
        asked = {part: optimizer for part, optimizer in asked.items() if optimizer.ema is not None}
        for part in (part for part in asked if part not in self.engines):
            raise UserError(
                f"engine.{part}.ema averages a part that no phase of the stages moves",
                got=", ".join(self.phases),
                fix=f"set engine.{part}.ema=null",
            )
        return {
            part: WeightAverage(
                getattr(self.context.model, part), optimizer.ema, optimizer.ema_every
            )
            for part, optimizer in asked.items()
        }

    def _freeze(self, model: EmoSym, used: dict[str, int]) -> None:
        if "autoencode" not in used:
            freeze(model.autoencoder)
        if not self.config.generate.train_text_encoder:
            freeze(model.generator.denoiser.text_encoder)
        if "backbone" in self.config.freeze:
            freeze(model.understander.backbone)
        if "denoiser" in self.config.freeze:
            freeze(model.generator.denoiser)

    def _adapt(self, model: EmoSym) -> None:
        """Put adapters into the parts that train through them. Ref: EmoSym (r 64), Flow-GRPO."""
        understander, generator = self.config.lora.understander, self.config.lora.generator
        if understander is not None:
            backbone = model.understander.backbone
            add_lora(
                backbone,
                LoraSpec(
                    layers=backbone_layers(backbone, vision=understander.vision),
                    rank=understander.rank,
                    alpha=understander.alpha,
                    dropout=understander.dropout,
                    seed=self.config.seed,
                ),
            )
        if generator is not None:
            denoiser = model.generator.denoiser
            add_lora(
                denoiser,
                LoraSpec(
                    layers=decoder_layers(denoiser),
                    rank=generator.rank,
                    alpha=generator.alpha,
                    dropout=generator.dropout,
                    init="gaussian",
                    seed=self.config.seed,
                ),
            )


def _means(gathered: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each metric over micro-batches and ranks; NaN counts as not measured."""
    names = list(gathered[0])
    values = torch.tensor([[metrics[name] for name in names] for metrics in gathered])
    known = torch.stack([values.nansum(0), (~values.isnan()).sum(0)])
    total, count = ranks.mean(known.to(ranks.device()))
    return dict(zip(names, (total / count).tolist(), strict=True))


def check_sizes(config: TrainConfig) -> None:
    """Print how each phase's global batch falls on ranks and micro-batches.

    Raises:
        UserError: an unknown phase, a size that does not divide.
    """
    accumulation = config.engine.accumulation
    per_step = ranks.size() * accumulation
    used = Schedule(config.stages, tuple(PHASES)).totals()
    sizes = {name: getattr(getattr(config, name), "batch_size", None) for name in used}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    wrong = [f"{name}.batch_size={size}" for name, size in sizes.items() if size % per_step]
    if wrong:
        raise UserError(
            "batch sizes are global and must divide over ranks and accumulation",
            got=f"{', '.join(wrong)} with NPROC={ranks.size()} x accumulation={accumulation}",
            expected=f"multiples of {per_step}",
            fix=f"change NPROC, engine.accumulation or {wrong[0].split('=')[0]}",
        )
    if ranks.is_first():
        for name, size in sizes.items():
            print(
                f"{name}: {size} a step = ranks {ranks.size()}"
                f" x micro-batches {accumulation} x {size // per_step}"
            )
