"""What evaluation asks of the things it evaluates: a model, a judge, an oracle, a parser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from numpy.typing import NDArray
from PIL import Image

from emosym.affect import Affect
from emosym.records import ImageRequest, Question, Sample, Understanding


class Answerer(Protocol):
    """What answers questions in words."""

    def answer(self, questions: Sequence[Question], *, max_tokens: int | None = None) -> list[str]:
        """Return one text per question, in order; None means the model's own longest answer."""
        ...


class Model(Answerer, Protocol):
    """A model that understands and generates emotion; `EmoSymPipeline` is one."""

    def understand(
        self, images: Sequence[Image.Image | Path], *, answer: bool = True
    ) -> list[Understanding]:
        """Return one `Understanding` per image, in order; without the text where not `answer`."""
        ...

    def generate(
        self,
        requests: Sequence[ImageRequest],
        *,
        seed: int | Sequence[int],
        guidance: float | None = None,
        steps: int | None = None,
    ) -> list[Image.Image]:
        """Return one image per request, in order; the same call gives the same images.

        Image i starts from the noise of seed + i, or of its own seed where a list is given. None
        means the model's own default.
        """
        ...


class Judge(Protocol):
    """What says which emotion generated images evoke; the same before and after training."""

    def recognise(self, images: Sequence[Image.Image]) -> tuple[list[Understanding], NDArray]:
        """Return one `Understanding` per image, in order, and the embeddings [N, D]."""
        ...


Oracle = Callable[[Image.Image, str], Affect]
"""Image and its subject -> the true affect, recomputed from the pixels. Never a reward."""

Parse = Callable[[str, Sample], object | None]
"""An answer's text and its sample -> what it says, or None where it does not parse."""
