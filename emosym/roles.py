"""What a whole model does for its users, a role each; `EmoSymPipeline` plays them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from emosym.records import ImageRequest, Question, Understanding


class Drawer(Protocol):
    """What draws images that are asked for."""

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
        means the drawer's own default.
        """
        ...


class Viewer(Protocol):
    """What says what images evoke."""

    def understand(
        self, images: Sequence[Image.Image | Path], *, answer: bool = True
    ) -> list[Understanding]:
        """Return one `Understanding` per image, in order; without words where not `answer`."""
        ...


class Answerer(Protocol):
    """What answers questions in words."""

    def answer(self, questions: Sequence[Question], *, max_tokens: int | None = None) -> list[str]:
        """Return one text per question, in order; None means the answerer's own longest answer."""
        ...
