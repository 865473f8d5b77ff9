"""The frozen reference: the understander as it was when the run started."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.func import functional_call

from emosym.interfaces import Answers, Prompts
from emosym.model import EmoSym
from emosym.understander import Reading, Understander
from model_zoo.adapters import adapter_names, adapters_off, remove_lora


class Reference:
    """Reads with the starting weights; judge, embedder of the bank and anchor of the KL.

    It keeps a copy of the parameters that train, and shares all the others with the live model.
    Adapters start at zero effect, so they need no copy: it reads with them switched off.
    """

    def __init__(self, understander: Understander) -> None:
        self.understander = understander
        adapters = adapter_names(understander)
        self.start: dict[str, Tensor] = {
            name: value.detach().clone()
            for name, value in understander.named_parameters()
            if value.requires_grad and name not in adapters
        }

    @torch.no_grad()
    def __call__(self, prompts: Prompts, answers: Answers | None = None) -> Reading:
        """Read with the starting weights."""
        with adapters_off(self.understander):
            return functional_call(self.understander, self.start, (prompts, answers))

    def model(self, live: EmoSym) -> EmoSym:
        """Return a model that understands as at the start; other parts are shared with `live`."""
        frozen = copy.copy(live)
        frozen._modules = dict(live._modules)
        frozen.understander = copy.deepcopy(self.understander).eval()
        remove_lora(frozen.understander)
        with torch.no_grad():
            for name, value in frozen.understander.named_parameters():
                if name in self.start:
                    value.copy_(self.start[name])
        return frozen
