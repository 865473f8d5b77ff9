"""The frozen reference: the understander as it was when the run started."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

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

Output = TypeVar("Output")


class FrozenModule(Generic[Output]):
    """A module as it was when the run started.

    It copies the weights that train and shares the others. Adapters are switched off instead of
    copied: their effect is zero at the start.
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
    def __call__(self, *inputs: object) -> Output:
        """Run the module with its starting weights, without gradient."""
        with adapters_off(self.module):
            return functional_call(self.module, self.start, inputs)


class ReferenceModel:
    """The understander with its starting weights; judge, embedder of the bank, anchor of the KL.

    Implements `emosym.interfaces.Recogniser`.
    """

    def __init__(self, model: EmoSym) -> None:
        self.model = model
        self.understander: FrozenModule[UnderstanderOutput] = FrozenModule(model.understander)

    def __call__(self, prompts: Prompts, answers: Answers | None = None) -> UnderstanderOutput:
        """Run the understander with the starting weights."""
        return self.understander(prompts, answers)

    def understand_pixels(self, texts: Sequence[str], pixels: Tensor) -> UnderstanderOutput:
        """Read questions about pixels [B, 3, H, W] in [-1, 1]; only these receive gradients."""
        prompts = self.model.processor.see(texts, pixels).to(pixels.device)
        understander = self.model.understander
        with _no_checkpointing(understander), adapters_off(understander):
            return functional_call(understander, self.understander.start, (prompts, None))

    def decode_states(self, states: Tensor, text: Answers) -> Tensor:
        """Return logits [B, L, vocabulary] of texts, given states [B, K, D] alone.

        Gradients reach the states and no weight.
        """
        backbone = self.model.understander.backbone
        start = self.understander.start.items()
        weights: dict[str, Any] = {k: v for k, v in start if k.startswith("backbone.")}
        with _no_checkpointing(backbone), adapters_off(backbone):
            return functional_call(LatentReader(backbone), weights, (states, text))

    def recognise(self, images: Iterable[Image.Image]) -> tuple[list[Understanding], np.ndarray]:
        """Return the reference's judgement of N images, and their embeddings [N, D]."""
        return recognise(self.model, self, images)


@contextlib.contextmanager
def _no_checkpointing(module: nn.Module) -> Iterator[None]:
    """Switch gradient checkpointing off, which is active in training mode only.

    The backward pass would recompute the layers with the current weights, not the starting ones.
    """
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)
