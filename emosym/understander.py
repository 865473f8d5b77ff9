"""The understanding branch: backbone, latent reasoning, heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import repeat
from torch import Tensor, nn

from emosym.heads import AffectHead, EmotionHead, mlp
from emosym.interfaces import Answers, Embedded, Prompts
from emosym.reasoner import Reasoner


class Lesson(NamedTuple):
    """The state at [EMO] after the latents and after the same knowledge in words."""

    student: Tensor
    """[B, N, D]: after each of N layers, having read the reasoning tokens."""
    teacher: Tensor
    """[B, N, D]: after each layer, having read the words in their place."""
    emotion_logits: Tensor
    """[B, Y] of the teacher."""
    affect: Tensor
    """[B, 2] of the teacher."""


class Reading(NamedTuple):
    """What one forward of the understanding branch gives.

    A tuple, because the training engine finds the outputs to watch by walking tuples.
    """

    h_ctx: Tensor
    """[B, K, D]: last hidden states of the reasoning tokens."""
    h_emo: Tensor
    """[B, D]: last hidden state of the emotion token."""
    emotion_logits: Tensor
    """[B, Y]"""
    affect: Tensor
    """[B, 2]: valence and arousal on `affect.PUBLIC`."""
    answer_logits: Tensor | None = None
    """[B, L, vocabulary]: position t predicts answer token t."""
    knowledge: Tensor | None = None
    """[B, D]: projected knowledge text, when knowledge features were given."""
    lesson: Lesson | None = None
    """When the knowledge was also given in words."""


@dataclass(slots=True)
class Decoding:
    """The state between two tokens of an answer that is being sampled."""

    reading: Reading
    cache: Any
    logits: Tensor
    """[B, vocabulary] of the next token."""
    mask: Tensor
    """[B, T + K + 1 + tokens so far]"""
    position: Tensor
    """[B]: position of the next token."""


class Understander(nn.Module):
    """Prompt -> reasoning tokens -> emotion, valence-arousal and an answer in words.

    Layout of a sequence: user turn (image, question), assistant turn ([CTX]_1..K, [EMO], answer).
    Ref: EmoSym §2.3; the answer after the latents is ours.
    """

    def __init__(
        self, backbone: nn.Module, *, tokens: int, hidden: int, classes: int, knowledge_width: int
    ) -> None:
        super().__init__()
        width = backbone.width
        self.backbone = backbone
        self.reasoner = Reasoner(tokens, width)
        self.emotion_head = EmotionHead(width, hidden, classes)
        self.affect_head = AffectHead(width, hidden)
        self.knowledge_head = mlp(knowledge_width, width, width)

    def forward(
        self,
        prompts: Prompts,
        answers: Answers | None = None,
        knowledge: Tensor | None = None,
        words: Answers | None = None,
    ) -> Reading:
        """Read prompts, and answers when given, in ONE parallel forward.

        Args:
            prompts: B user turns.
            answers: B assistant texts, or B·G in groups of G to a prompt; their logits
                [B·G, L, vocabulary] are teacher-forced. A prompt is read once for its group where
                the backbone can (`shares_prefix`), and once for each answer otherwise.
            knowledge: [B, P] features of the knowledge texts.
            words: the knowledge texts themselves, not closed, for a `lesson`; answers come in no
                groups then.
        """
        projected = self.knowledge_head(knowledge) if knowledge is not None else None
        group = _group(prompts, answers)
        if words is not None and group > 1:
            raise ValueError("words go with one answer a prompt")
        if answers is not None and group > 1 and self.backbone.shares_prefix:
            return self._read_groups(prompts, answers, group)._replace(knowledge=projected)
        start = prompts.input_ids.shape[1]
        tokens = self._open(prompts)
        teacher = None if words is None else self._read_words(tokens.until(start), words)
        if answers is not None:
            embedded = self.backbone.embed_tokens(answers.ids)
            tokens = tokens.repeat(group).then(embedded, answers.mask)
        lesson = None
        if teacher is None:
            hidden = self.backbone.read(tokens)
        else:
            layers = self.backbone.read_layers(tokens)
            hidden = layers[-1]
            lesson = Lesson(
                student=_at(layers, start + self.reasoner.tokens),
                teacher=teacher,
                emotion_logits=self.emotion_head(teacher[:, -1]),
                affect=self.affect_head(teacher[:, -1]),
            )
        logits = None
        if answers is not None:
            # The state at [EMO] predicts the first answer token, each answer state the next one.
            logits = self.backbone.logits(hidden[:, start + self.reasoner.tokens : -1])
        return self._reading(hidden[::group, start:], logits, projected)._replace(lesson=lesson)

    def open_answer(self, prompts: Prompts, repeats: int = 1) -> Decoding:
        """Read prompts once and get ready to sample `repeats` answers for each (in group order)."""
        tokens = self._open(prompts)
        cache = self.backbone.new_cache()
        hidden = self.backbone.read(tokens, cache)
        logits = self.backbone.logits(hidden[:, -1])
        reading = self._reading(hidden[:, prompts.input_ids.shape[1] :], None, None)
        if repeats > 1:
            cache.batch_repeat_interleave(repeats)
        return Decoding(
            reading=reading,
            cache=cache,
            logits=logits.repeat_interleave(repeats, 0),
            mask=tokens.mask.repeat_interleave(repeats, 0),
            position=(tokens.positions.amax((0, 2)) + 1).repeat_interleave(repeats, 0),
        )

    def _read_words(self, prompt: Embedded, words: Answers) -> Tensor:
        """Return the states [B, N, D] at an [EMO] that follows words instead of latents."""
        told = prompt.then(self.backbone.embed_tokens(words.ids), words.mask)
        emotion = self.reasoner(len(words.ids))[:, -1:].to(told.embeddings.dtype)
        # [EMO] stands after the last word of its own row, whatever the padding between them.
        place = prompt.positions.amax((0, 2)) + words.mask.sum(1) + 1
        tokens = Embedded(
            torch.cat([told.embeddings, emotion], 1),
            torch.cat([told.mask, told.mask.new_ones(len(words.ids), 1)], 1),
            torch.cat([told.positions, repeat(place, "b -> a b 1", a=3)], 2),
            told.deepstack,
        )
        return _at(self.backbone.read_layers(tokens), -1)

    def _read_groups(self, prompts: Prompts, answers: Answers, group: int) -> Reading:
        """Read each prompt once and its G answers after it, through its keys and values."""
        state = self.open_answer(prompts, group)
        mask = torch.cat([state.mask, answers.mask], 1)
        steps = torch.arange(answers.ids.shape[1], device=mask.device)
        positions = (state.position[:, None] + steps).expand(3, -1, -1)
        embedded = self.backbone.embed_tokens(answers.ids)
        hidden = self.backbone.read(Embedded(embedded, mask, positions), state.cache)
        logits = torch.cat([state.logits[:, None], self.backbone.logits(hidden[:, :-1])], 1)
        return state.reading._replace(answer_logits=logits)

    def extend_answer(self, state: Decoding, ids: Tensor) -> None:
        """Append one token [B] to each answer and update the state in place."""
        state.mask = torch.cat([state.mask, state.mask.new_ones(len(ids), 1)], 1)
        positions = state.position.expand(3, -1)[..., None]
        embedded = self.backbone.embed_tokens(ids[:, None])
        hidden = self.backbone.read(Embedded(embedded, state.mask, positions), state.cache)
        state.logits = self.backbone.logits(hidden[:, -1])
        state.position = state.position + 1

    def keep_answers(self, state: Decoding, rows: Tensor) -> None:
        """Go on with some of the answers only, by index; the state changes in place."""
        state.cache.batch_select_indices(rows)
        state.logits, state.mask = state.logits[rows], state.mask[rows]
        state.position = state.position[rows]

    def _open(self, prompts: Prompts) -> Embedded:
        prompt = self.backbone.embed_prompts(prompts)
        latents = self.reasoner(len(prompts)).to(prompt.embeddings.dtype)
        return prompt.then(latents, prompt.mask.new_ones(latents.shape[:2]))

    def _reading(self, span: Tensor, logits: Tensor | None, knowledge: Tensor | None) -> Reading:
        h_ctx, h_emo = span[:, : self.reasoner.tokens], span[:, self.reasoner.tokens]
        return Reading(
            h_ctx=h_ctx,
            h_emo=h_emo,
            emotion_logits=self.emotion_head(h_emo),
            affect=self.affect_head(h_emo),
            answer_logits=logits,
            knowledge=knowledge,
        )


def _group(prompts: Prompts, answers: Answers | None) -> int:
    """Return G, answers a prompt; 1 where nothing is answered."""
    if answers is None:
        return 1
    group, rest = divmod(len(answers.ids), len(prompts))
    if rest or not group:
        raise ValueError(f"{len(answers.ids)} answers to {len(prompts)} prompts")
    return group


def _at(layers: list[Tensor], place: int) -> Tensor:
    """Return the states of one place after each of N layers, [B, N, D]."""
    return torch.stack([states[:, place] for states in layers], 1)
