"""The algorithms of reinforce by name.

There are three kinds: policy gradients through log-probabilities of sampling steps, DiffusionNFT's
loss on the forward process, and the gradient of the judge itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from emosym.diffusion.transitions import TRANSITIONS
from train.phases.reinforce.algorithm import AlgorithmClass
from train.phases.reinforce.forward_process import ForwardProcess
from train.phases.reinforce.policy_gradient import PolicyGradient
from train.phases.reinforce.reward_gradient import RewardGradient

ALGORITHMS: Mapping[str, AlgorithmClass] = {
    **{name: partial(PolicyGradient, rule) for name, rule in TRANSITIONS.items()},
    "nft": ForwardProcess,
    "direct": RewardGradient,
}
"""Name -> algorithm; its options are those of the same name in `config.OPTIONS`."""
