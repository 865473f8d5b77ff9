"""Instruct: learn to answer questions in words. Ref: EEmo-Logic (arXiv 2602.01173), stage 1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from emosym.errors import UserError
from emosym.models.losses import language_loss
from emosym.records import Question
from train.micro_batches import MicroBatch
from train.phases.base import Phase, PhaseContext, StepOutput, Text
from train.ranges import check_positive


@dataclass(kw_only=True, slots=True)
class InstructConfig:
    """Instruction tuning. Ref: EEmo-Logic, stage 1 (docs/papers.md)."""

    batch_size: int = 32
    """Questions a step."""

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size)


class Instruct(Phase[InstructConfig, Question]):
    """Cross-entropy on the tokens of reference answers."""

    name = "instruct"
    Config = InstructConfig
    owns = ("understander",)
    batch_kind = "questions"

    def __init__(self, context: PhaseContext) -> None:
        super().__init__(context)
        missing = [q for q in context.training_set.all("questions") if not q.answer]
        if missing:
            raise UserError(
                "phase instruct needs a reference answer to every training question",
                got=f"{len(missing)} without, first {missing[0].id} ({missing[0].task})",
                fix="leave their task out of data.tasks, or add the answers",
            )

    @classmethod
    def texts(cls, config: InstructConfig, item: Question) -> Iterable[Text]:
        """Yield a question and its reference answer."""
        yield Text(item.text)
        yield Text(item.answer)

    def loss(self, batch: MicroBatch[Question]) -> StepOutput:
        """Return the language loss of one micro-batch."""
        context = self.context
        questions = context.question_prompts(batch.items)
        answers = context.answers([question.answer for question in batch.items])
        logits = context.parts["understander"](questions, answers).answer_logits
        correct = (logits.argmax(-1) == answers.ids).float() * answers.mask
        metrics = {
            "token_accuracy": (correct.sum(1) / answers.mask.sum(1)).mean(),
            "answer_tokens": answers.mask.sum(1).float().mean(),
        }
        return StepOutput(language_loss(logits, answers.ids, answers.mask), metrics)
