"""The training loop: each step calls its phase's loss and updates the parts that the phase owns."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from PIL import Image

from emosym.errors import UserError
from emosym.models.model import EmoSym
from emosym.randomness import Draws
from emosym.records import Question, Sample
from model_zoo.adapters import set_dropout
from train.checkpoints import checkpoint
from train.checkpoints.files import list_checkpoints
from train.config import RunConfig
from train.data.bank_session import BankConfig, BankSession
from train.data.dataset import TrainingSet
from train.data.knowledge import KnowledgeConfig, KnowledgeEncoder
from train.data.prompt_features import PromptFeatureCache
from train.data.run_data import RunData
from train.distributed import engines, ranks
from train.distributed.ema import WeightAverage
from train.distributed.launcher import resume_command
from train.logs.metrics import Logs, open_logs
from train.logs.step_metrics import StepMetrics
from train.micro_batches import MicroBatch, split
from train.phases.base import Alarm, Need, Phase, PhaseContext, StepAbandoned
from train.phases.registry import PHASES
from train.reference import FrozenModule, ReferenceModel
from train.schedule import Schedule, learning_rate
from train.starting_model import adapt, changed_hash, freeze_unused, refit

Batch = Sequence[Sample] | Sequence[Question]
Look = tuple[dict[str, float], Image.Image | None]
"""Held-out scores during training, and a sheet of generated images."""


class Interrupted(Exception):  # noqa: N818  not an error
    """A signal stopped the run; its state is saved."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Trainer:
    """Trains one model by a schedule of phases, from the start or from a checkpoint of the run."""

    def __init__(
        self,
        config: RunConfig,
        run: Path,
        model: EmoSym,
        data: RunData,
        model_hash: str,
    ) -> None:
        self.config = config
        self.run = run
        self.schedule = Schedule(config.stages, PHASES)
        self._classes: dict[str, type[Phase[Any, Any]]] = {
            name: PHASES[name] for name in self.schedule.totals()
        }
        device = ranks.device()
        model = model.to(device).train()
        knowledge = self._knowledge_encoder(model, device)
        changes = refit(model, config.reasoning_tokens, knowledge, config.seed)
        model_hash = changed_hash(model_hash, changes, config.seed)
        for change in changes if ranks.is_first() else []:
            print(change)
        text_encoder = model.generator.denoiser.text_encoder
        unfrozen = [
            module
            for name, phase in self._classes.items()
            for module in phase.unfreezes(config.section(name), model)
        ]
        freeze_unused(model, config.freeze, unfrozen)
        adapt(model, config.lora, config.seed)
        if config.engine.gradient_checkpointing:
            model.understander.backbone.checkpoint_gradients()
            model.generator.denoiser.checkpoint_gradients()
        reference = ReferenceModel(model)
        self.context = PhaseContext(
            config=config,
            model=model,
            parts={name: getattr(model, name) for name in EmoSym.PARTS},
            training_set=TrainingSet(data.samples, data.questions, config.data, config.seed),
            reference=reference,
            starting_generator=FrozenModule(model.generator) if self._sections("start") else None,
            prompt_features=PromptFeatureCache(
                model.generator.denoiser, frozen=text_encoder not in unfrozen
            ),
            memory=self._bank(model, reference, model_hash),
            knowledge_encoder=knowledge,
            device=device,
            save=self._save_before_step,
        )
        self.phases = {name: phase(self.context) for name, phase in self._classes.items()}
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
            print(f"{part}: the run evaluates and saves an average of its weights ({average})")
        self.state = checkpoint.State.of_start(ranks.size(), model_hash)
        self.data_metrics: dict[str, float] = {}
        """Metrics of the run's data; recorded with every step."""
        self._alarm: Alarm | None = None
        self._stop = 0
        self._updated = False
        """Whether an optimizer update of the current step has changed the weights."""

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.run / "checkpoints"

    def restore(self, name: str | None = None) -> None:
        """Load a checkpoint of the run, or its last one; without one, start at step 0.

        Later checkpoints than the named one are set aside: they belong to steps that run again.

        Raises:
            UserError: a checkpoint that cannot be loaded, a schedule that ends before it, a bank
                that is not the run's.
        """
        with ranks.raise_once():
            found = checkpoint.find(self.checkpoints, name)
        if found is not None:
            self.state = checkpoint.load(
                found,
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
        memory = self.context.memory
        if name is not None:
            memory.check(self.state.bank_version, self.state.bank_digest)
            with ranks.raise_together():
                if ranks.is_first():
                    for path in checkpoint.set_aside(self.checkpoints, name):
                        ranks.say(f"a later checkpoint is kept as {path}; delete it to free space")
        memory.restore(self.state.bank_version, self.state.bank_digest)

    def train(self, look: Callable[[int], Look] | None = None) -> None:
        """Run the remaining steps.

        Args:
            look: measures the model after the given number of steps, on all ranks; called every
                `evaluate.every` steps.

        Raises:
            Interrupted: after SIGTERM or SIGINT, with everything saved.
            UserError: a loss or gradient is not finite, or an image cannot be read; the state
                before the step is saved. Or a phase's monitor raised an alarm; the state after the
                step is saved.
            ranks.OtherRankError: the same, on another rank.
        """
        self.context.memory.fill(self.context.training_set)
        total = len(self.schedule)
        logs = open_logs(self.run, self.config, self.state.step, self.schedule.phases)
        handlers = {s: signal.signal(s, self._ask_to_stop) for s in (signal.SIGTERM, signal.SIGINT)}
        started, before = time.monotonic(), self.state.seconds
        try:
            while self.state.step < total:
                step, phase = self.state.step, self.schedule.phase_at(self.state.step)
                step_started = time.monotonic()
                metrics, owns = self.step(), self.phases[phase].owns
                speed = self.phases[phase].batch_size / (time.monotonic() - step_started)
                rates = {part: engines.learning_rate(self.engines[part]) for part in owns}
                scores, sheet = self._look(look, logs)
                logs.row(step, phase, metrics, speed, rates, self.data_metrics, scores, sheet)
                self.state.seconds = before + time.monotonic() - started
                if self._alarm is not None:
                    self.save()
                    raise self._alarm_error(self._alarm)
                if ranks.any_rank(self._stop > 0):
                    break
                if self.state.step % self.config.save_every == 0:
                    self.save()
            self.save()
        finally:
            logs.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        # Asked last: until here a signal, also one while the logs close, is only noted.
        if ranks.any_rank(self._stop > 0):
            raise Interrupted(self._stop or signal.SIGTERM)

    def _look(self, look: Callable[[int], Look] | None, logs: Logs) -> Look:
        """Measure the model if that is due."""
        every = self.config.evaluate.every
        if look is None or not every or self.state.step % every:
            return {}, None
        with logs.paused():
            return look(self.state.step)

    def step(self) -> dict[str, float]:
        """Run the next step of the schedule and return its metrics; raises as `train`."""
        name = self.schedule.phase_at(self.state.step)
        try:
            metrics = self._step(self.state.step, name)
        except StepAbandoned as abandoned:  # resumed, the run goes on with the next step
            self.state.step += 1
            self._alarm = abandoned.alarm
            return abandoned.metrics
        self.state.step += 1
        history = self.state.monitors.setdefault(name, [])
        self._alarm = self.phases[name].monitor(metrics, history)
        return metrics

    def save(self) -> None:
        """Write a checkpoint of the state between two steps."""
        if self.context.memory.bank is not None:  # else keep the version of an earlier stage
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
        """Replace the weights by their moving averages, for evaluation and for the saved model."""
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
        if not phase.owns:
            return phase.act(step, self.schedule.count(name, step))
        updates = split(
            self._batch(step, name),
            phase.steps_per_generation,
            self.config.engine.gradient_accumulation_steps,
            (self.config.seed, name, step),
        )
        batches = [batch for update in updates for batch in update]
        self._load_images(path for batch in batches for i in batch.items for path in i.images)
        for batch, prepared in zip(batches, phase.prepare(batches), strict=True):
            batch.prepared = prepared
        metrics = StepMetrics()
        for number, update in enumerate(updates * phase.num_iterations):
            for part in phase.owns:
                done, total = self._updates(part, step), self._updates(part, len(self.schedule))
                optimizer = getattr(self.config.engine, part)
                rate = learning_rate(optimizer, done + number, total)
                engines.prepare(self.engines[part], optimizer, rate)
            self._update(phase, update, metrics)
        self._updated = False
        return metrics.result()

    def _update(
        self, phase: Phase[Any, Any], batches: Sequence[MicroBatch[Any]], metrics: StepMetrics
    ) -> None:
        """Take one optimizer step on the micro-batches of an update."""
        for batch in batches:
            batch.seed_model()
            output = phase.loss(batch)
            loss = output.loss.item()
            bad = not math.isfinite(loss)
            if ranks.any_rank(bad):
                self._refuse(f"loss {loss}", batch.items if bad else [])
            self.engines[phase.owns[-1]].backward(output.loss)
            if batch is batches[-1]:
                for part in phase.owns:  # check all parts before updating any of them
                    if engines.overflowed(self.engines[part]):
                        first = batch.step_items[batch.update] if ranks.is_first() else []
                        self._refuse(f"a gradient of {part} that is not finite", first)
                self._updated = True
            for part in phase.owns:
                self.engines[part].step()
            metrics.add({"loss": loss, **output.metrics}, output.maxima)
        for part in phase.owns:
            if part in self.averages:
                self.averages[part].update()
        norms = [float(self.engines[part].get_global_grad_norm()) for part in phase.owns]
        metrics.add({"grad_norm": math.hypot(*norms)})

    def _load_images(self, paths: Iterable[Path | Image.Image]) -> None:
        """Decode this rank's images, before any rank waits for another one inside the loss."""
        with self.context.save_on_failure():
            for path in paths:
                self.context.training_set.image(path)

    def _updates(self, part: str, before: int) -> int:
        """Return how many optimizer updates of a part come before step `before`."""
        return sum(
            self.schedule.count(name, before) * phase.steps_per_generation * phase.num_iterations
            for name, phase in self.phases.items()
            if part in phase.owns
        )

    def _batch(self, step: int, name: str) -> Batch:
        phase, training_set = self.phases[name], self.context.training_set
        size, position = phase.batch_size, self.schedule.count(name, step) * phase.batch_size
        if not phase.replays:
            return training_set.take(phase.batch_kind, name, position, size)
        samples = training_set.take("samples", name, position, size)
        memory = self.context.memory
        samples = memory.contrast(samples, phase.hard_negatives)
        samples = memory.mix(samples, (self.config.seed, step, memory.version))
        order = Draws(self.config.seed, "mix", step).permutation(len(samples)).tolist()
        return [samples[place] for place in order]

    def _save_before_step(self) -> None:
        """Save the state before this step, if no update of the step has changed the weights."""
        if not self._updated:
            self.save()

    def _refuse(self, problem: str, items: Batch) -> NoReturn:
        """Save the state before this step and stop; the rank with `items` reports why."""
        self._save_before_step()
        if not items:
            raise ranks.OtherRankError
        step = self.state.step
        earlier = [path.name for path in list_checkpoints(self.checkpoints)[:-1]]
        back = "or start a new run with a lower learning rate"
        if earlier:
            back = f"or lower the learning rate, then {resume_command(self.run, earlier[-1])}"
        saved = "the state before it is saved"
        if self._updated:
            saved = "the last checkpoint is from before it, because earlier updates of the step"
            saved += " changed the weights"
        raise UserError(
            f"step {step + 1} ({self.schedule.phase_at(step)}) was refused",
            got=f"{problem} for images {', '.join(item.id for item in items[:8])}",
            fix=f"{saved}; fix the data, then {resume_command(self.run)}, {back}",
        )

    def _alarm_error(self, alarm: Alarm) -> Exception:
        if not ranks.is_first():
            return ranks.OtherRankError()
        return UserError(
            alarm.problem,
            got=alarm.got,
            fix=f"the state is saved: {alarm.fix}: {resume_command(self.run)}",
        )

    def _ask_to_stop(self, number: int, _: object) -> None:
        self._stop = number

    def _sections(self, need: Need) -> list[Any]:
        """Return the sections of the run's phases that need something."""
        return [
            self.config.section(name)
            for name, phase in self._classes.items()
            if need in phase.needs
        ]

    def _knowledge_encoder(self, model: EmoSym, device: torch.device) -> KnowledgeEncoder | None:
        sections: list[KnowledgeConfig] = self._sections("knowledge")
        if not sections:
            return None
        named = [each.knowledge_encoder for each in sections if each.knowledge_encoder]
        if len(set(named)) > 1:
            raise UserError("the phases of a run share one knowledge encoder", got=", ".join(named))
        name = named[0] if named else model.config.knowledge_encoder
        return KnowledgeEncoder(name, model, device)

    def _bank(self, model: EmoSym, reference: ReferenceModel, model_hash: str) -> BankSession:
        sections: list[BankConfig] = self._sections("bank")
        if len(sections) > 1:
            raise UserError("two phases of the stages have options of the memory bank")
        path = self.run / "bank" if sections else None
        options = sections[0] if sections else BankConfig()
        return BankSession(path, options, model, reference, model_hash)

    def _averages(self) -> dict[str, WeightAverage]:
        """Make the averages that the options name, from the weights that the run starts with."""
        averages = {}
        for part in EmoSym.PARTS:
            optimizer = getattr(self.config.engine, part)
            if optimizer.ema_decay is None:
                continue
            if part not in self.engines:
                raise UserError(
                    f"engine.{part}.ema_decay averages a part that no phase of the stages trains",
                    got=", ".join(self.phases),
                    fix=f"set engine.{part}.ema_decay=null",
                )
            module = getattr(self.context.model, part)
            averages[part] = WeightAverage(module, optimizer.ema_decay, optimizer.ema_update_every)
        return averages
