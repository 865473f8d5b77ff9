"""A vision-language model behind a chat-completions server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from PIL import Image

from emosym.affect.scales import Affect
from emosym.affect.taxonomies import MIKELS8
from emosym.errors import UserError
from emosym.pictures.loading import load_image
from emosym.records import Question, Understanding
from emosym.tasks.affect import untrained_prompt
from emosym.tasks.answers import parse
from model_zoo.judges.answer_cache import AnswerCache
from model_zoo.judges.chat_client import RETRIES, TIMEOUT, ChatClient, ChatRequest

ANSWER_TOKENS = 512
"""Default maximum length of an answer."""
BATCH_SIZE = 64
"""Requests whose images are in memory at the same time."""

JUDGE_QUESTION = Question(
    id="judge",
    task="affect",
    images=(),
    split="test",
    text=untrained_prompt(MIKELS8),
    labels=MIKELS8,
)
"""The question that `understand` asks about each image."""

ImageSource = Image.Image | Path | str


class RemoteModel:
    """A remote model with the methods `understand` and `answer` of `EmoSymPipeline`.

    Implements `emosym.interfaces.QuestionAnswerer`. It answers greedily (temperature 0). Equal
    requests of one call are sent once. With a cache they are sent once in all; the cache identifies
    a model by its name, not by its server.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        cache: str | Path | None = None,
        timeout: float = TIMEOUT,
        retries: int = RETRIES,
        backoff: float = 1.0,
    ) -> None:
        """Check the arguments; nothing is sent.

        Args:
            url: see `ChatClient`.
            model: see `ChatClient`.
            cache: folder of the answer cache; None for no cache.
            timeout: see `ChatClient`.
            retries: see `ChatClient`.
            backoff: see `ChatClient`.

        Raises:
            UserError: as `ChatClient`; the cache folder cannot be written.
        """
        self.chat = ChatClient(url, model, timeout=timeout, retries=retries, backoff=backoff)
        self.cache = AnswerCache(cache) if cache is not None else None

    def understand(
        self, images: Sequence[ImageSource], *, answer: bool = True
    ) -> list[Understanding]:
        """Return what each image evokes; the probability of the named emotion is 1.

        Args:
            images: images or their files, of any size.
            answer: whether to include the answer's text in the result.

        Raises:
            UserError: a request failed, or an answer does not state emotion, valence and arousal
                in the requested format.
        """
        requests = [((image,), JUDGE_QUESTION.text, ANSWER_TOKENS) for image in images]
        texts = self._answers(requests, check=self._parse)
        return [self._parse(text, keep_text=answer) for text in texts]

    def answer(self, questions: Sequence[Question], *, max_tokens: int | None = None) -> list[str]:
        """Return the text of the answer to each question, as `EmoSymPipeline.answer` does.

        Args:
            questions: each about one image, a pair, or none.
            max_tokens: maximum length of an answer; default: `ANSWER_TOKENS`.

        Raises:
            UserError: a request failed, or an image cannot be read.
        """
        limit = max_tokens or ANSWER_TOKENS
        return self._answers([(question.images, question.text, limit) for question in questions])

    def _answers(
        self,
        requests: Sequence[tuple[Sequence[ImageSource], str, int]],
        check: Callable[[str], object] = str,
    ) -> list[str]:
        """Return the answers to requests (images, text, max_tokens).

        `check` raises UserError for an invalid answer, which is then not cached.
        """
        answers: list[str] = []
        for start in range(0, len(requests), BATCH_SIZE):
            batch = [
                ChatRequest(text, tuple(load_image(image) for image in images), limit)
                for images, text, limit in requests[start : start + BATCH_SIZE]
            ]
            answers += self._answer_batch(batch, check)
        return answers

    def _answer_batch(
        self, requests: Sequence[ChatRequest], check: Callable[[str], object]
    ) -> list[str]:
        identities = [self._identity(request) for request in requests]
        names = [repr(identity) for identity in identities]
        by_name = dict(zip(names, zip(identities, requests, strict=True), strict=True))
        answers: dict[str, str] = {}
        if self.cache is not None:
            cached = {name: self.cache.get(identity) for name, (identity, _) in by_name.items()}
            answers = {name: text for name, text in cached.items() if text is not None}

        def on_answer(name: str, text: str) -> None:
            check(text)
            answers[name] = text
            if self.cache is not None:
                self.cache.put(by_name[name][0], text)

        missing = {name: each for name, (_, each) in by_name.items() if name not in answers}
        self.chat.ask(missing, on_answer)
        return [answers[name] for name in names]

    def _identity(self, request: ChatRequest) -> dict[str, object]:
        """Return all that determines an answer, as JSON data."""
        return {
            "model": self.chat.model,
            "images": [_sha256(image) for image in request.images],
            "text": request.text,
            "max_tokens": request.max_tokens,
        }

    def _parse(self, text: str, keep_text: bool = True) -> Understanding:
        values = parse(text, JUDGE_QUESTION).values
        missing = [key for key in ("emotion", "valence", "arousal") if key not in values]
        if missing:
            raise UserError(
                f"{self.chat.model!r} at {self.chat.url} does not state the {missing[0]}"
                " of an image",
                got=repr(self.chat.shown(text)),
                expected="<answer>Emotion: word; Valence: x.x; Arousal: x.x</answer>",
                fix="use a model that follows instructions, or one with shorter reasoning",
            )
        emotion = str(values["emotion"])
        valence, arousal = (cast(float, values[key]) for key in ("valence", "arousal"))
        return Understanding(
            emotion=emotion,
            probabilities={label: float(label == emotion) for label in JUDGE_QUESTION.labels},
            affect=Affect(valence, arousal),
            answer=text if keep_text else "",
        )


def _sha256(image: Image.Image) -> str:
    """Return the hash of an RGB image's size and pixels."""
    size = f"{image.width} {image.height} ".encode()
    return hashlib.sha256(size + image.tobytes()).hexdigest()
