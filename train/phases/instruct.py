"""Instruct: learn to answer questions in words. Ref: EEmo-Logic (arXiv 2602.01173), stage 1."""

from __future__ import annotations

from emosym.errors import UserError
from emosym.models.losses import language_loss
from train.phases.base import MicroBatch, PhaseContext, StepOutput


class Instruct:
    """Cross-entropy on the tokens of reference answers."""

    name = "instruct"
    owns = ("understander",)
    material = "questions"
    replays = False
    compares = None
    dropout = True

    def __init__(self, context: PhaseContext) -> None:
        self.context = context
        self.batch_size = context.config.instruct.batch_size
        silent = [q for q in context.training_set.material("questions") if not q.answer]
        if silent:
            raise UserError(
                "phase instruct needs a reference answer to every training question",
                got=f"{len(silent)} without, first {silent[0].id} ({silent[0].task})",
                fix="leave their task out of data.tasks, or add the answers",
            )

    def loss(self, part: MicroBatch) -> StepOutput:
        """Return the language loss of one micro-batch."""
        context = self.context
        asked = context.pose(part.samples)
        texts = [question.answer for question in part.samples]
        answers = context.model.processor.answers(texts).to(context.device)
        logits = context.parts["understander"](asked, answers).answer_logits
        right = (logits.argmax(-1) == answers.ids).float() * answers.mask
        metrics = {
            "token_accuracy": (right.sum(1) / answers.mask.sum(1)).mean(),
            "answer_tokens": answers.mask.sum(1).float().mean(),
        }
        return StepOutput(language_loss(logits, answers.ids, answers.mask), metrics)
