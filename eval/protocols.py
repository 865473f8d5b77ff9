"""What evaluation asks of the things it evaluates: a model, a judge, an oracle, a parser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from numpy.typing import NDArray
from PIL import Image

from emosym.affect.scales import Affect
from emosym.records import Sample, Understanding
from emosym.roles import Answerer, Drawer, Viewer


class Model(Drawer, Viewer, Answerer, Protocol):
    """A model that understands and generates emotion; `EmoSymPipeline` is one."""


class Judge(Protocol):
    """What says which emotion generated images evoke; the same before and after training."""

    def recognise(self, images: Sequence[Image.Image]) -> tuple[list[Understanding], NDArray]:
        """Return one `Understanding` per image, in order, and the embeddings [N, D]."""
        ...


Oracle = Callable[[Image.Image, str], Affect]
"""Image and its subject -> the true affect, recomputed from the pixels. Never a reward."""

Parse = Callable[[str, Sample], object | None]
"""An answer's text and its sample -> what it says, or None where it does not parse."""
