"""The frozen reference: the understander as it was when the run started."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.func import functional_call

from emosym.interfaces import Answers, Prompts
from emosym.model import EmoSym
from emosym.recognition import recognise
from emosym.reconstruction import LatentReader
from emosym.records import Understanding
from emosym.understander import Reading
from model_zoo.adapters import adapter_names, adapters_off


class Reference:
    """Reads with the starting weights; judge, embedder of the bank and anchor of the KL.

    It keeps a copy of the parameters that train, and shares all the others with the live model.
    Adapters start at zero effect, so they need no copy: it reads with them switched off.
    Implements `eval.protocols.Judge`.
    """

    def __init__(self, model: EmoSym) -> None:
        self.model = model
        adapters = adapter_names(model.understander)
        self.start: dict[str, Tensor] = {
            name: value.detach().clone()
            for name, value in model.understander.named_parameters()
            if value.requires_grad and name not in adapters
        }

    @torch.no_grad()
    def __call__(self, prompts: Prompts, answers: Answers | None = None) -> Reading:
        """Read with the starting weights."""
        with adapters_off(self.model.understander):
            return functional_call(self.model.understander, self.start, (prompts, answers))

    def tell(self, states: Tensor, text: Answers) -> Tensor:
        """Return logits [B, L, vocabulary] of texts, read from states [B, K, D] alone.

        Gradients reach the states and no weight.
        """
        backbone = self.model.understander.backbone
        start = {k: v for k, v in self.start.items() if k.startswith("backbone.")}
        # In evaluation mode layers are not checkpointed: they would be read again on the way back,
        # with the weights of then.
        trains = backbone.training
        backbone.eval()
        try:
            with adapters_off(backbone):
                return functional_call(LatentReader(backbone), start, (states, text))
        finally:
            backbone.train(trains)

    def recognise(self, images: Iterable[Image.Image]) -> tuple[list[Understanding], np.ndarray]:
        """Return what images evoked at the start, and their embeddings [N, D]."""
        return recognise(self.model, self, images)
