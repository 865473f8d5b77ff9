"""The frozen reference: the understander as it was when the run started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call

from emosym.inference.recognition import recognise
from emosym.interfaces import Answers, Prompts
from emosym.models.latent_reader import LatentReader
from emosym.models.model import EmoSym
from emosym.models.understander import UnderstanderOutput
from emosym.records import Understanding
from model_zoo.adapters import adapter_names, adapters_off


class FrozenModule:
    """A module as it was when the run started; a copy of what trains, the rest is shared.

    Adapters start at zero effect, so they need no copy: they are switched off.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        adapters = adapter_names(module)
        self.start: dict[str, Tensor] = {
            name: value.detach().clone()
            for name, value in module.named_parameters()
            if value.requires_grad and name not in adapters
        }

    @torch.no_grad()
    def __call__(self, *inputs: object) -> object:
        """Run the module with its starting weights, without gradient."""
        with adapters_off(self.module):
            return functional_call(self.module, self.start, inputs)


class ReferenceModel:
    """Reads with the starting weights; judge, embedder of the bank and anchor of the KL.

    Implements `emosym.interfaces.Recogniser`.
    """

    def __init__(self, model: EmoSym) -> None:
        self.model = model
        self.understander = FrozenModule(model.understander)

    def __call__(self, prompts: Prompts, answers: Answers | None = None) -> UnderstanderOutput:
        """Read with the starting weights."""
        return self.understander(prompts, answers)

    def see(self, texts: Sequence[str], pixels: Tensor) -> UnderstanderOutput:
        """Read questions on pictures [B, 3, H, W] in [-1, 1], with gradient to the pixels alone."""
        asked = self.model.processor.see(texts, pixels).to(pixels.device)
        understander = self.model.understander
        with _unchecked(understander), adapters_off(understander):
            return functional_call(understander, self.understander.start, (asked, None))

    def tell(self, states: Tensor, text: Answers) -> Tensor:
        """Return logits [B, L, vocabulary] of texts, read from states [B, K, D] alone.

        Gradients reach the states and no weight.
        """
        backbone = self.model.understander.backbone
        start = self.understander.start.items()
        start = {k: v for k, v in start if k.startswith("backbone.")}
        with _unchecked(backbone), adapters_off(backbone):
            return functional_call(LatentReader(backbone), start, (states, text))

    def recognise(self, images: Iterable[Image.Image]) -> tuple[list[Understanding], np.ndarray]:
        """Return what images evoked at the start, and their embeddings [N, D]."""
        return recognise(self.model, self, images)


@contextlib.contextmanager
def _unchecked(module: nn.Module) -> Iterator[None]:
    """Keep layers from being checkpointed, which they are in training mode alone.

    They would be read again on the way back, with the weights of then.
    """
    trains = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(trains)
