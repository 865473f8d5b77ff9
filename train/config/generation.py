"""Sections of the phases that train the generator, or draw with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from emosym.errors import UserError, unknown
from emosym.rl.scorers import JudgeSpec
from memory_bank.admission.gates import GATES
from train.config.ranges import positive, share


@dataclass(kw_only=True, slots=True)
class GenerateConfig:
    """Denoising through conditioner and decoder. Ref: EmoSym §2.6."""

    batch_size: int = 32
    """Images a step."""
    update_understander: bool = False
    """Let the loss flow into the understander and step it too, with the two weights below."""
    label_weight: float = 1.0
    """Cross-entropy that keeps understanding, where the understander read the image."""
    affect_weight: float = 1.0
    """Smooth L1 that keeps understanding, where the understander read the image."""
    image_share: float = 0.25
    """Share of steps whose condition is read from the image itself, not from the request."""
    condition_dropout: float = 0.1
    """Share of images whose whole condition is dropped (for guidance)."""
    prompt_dropout: float = 0.1
    """Share of images without a prompt (emotion alone)."""
    label_dropout: float = 0.5
    """Share of requests that name no emotion."""
    affect_dropout: float = 0.1
    """Share of requests that name no valence and arousal."""
    density_weight: float = 0.0
    """Power, in [0, 2], of the rarity (1 / density) of an image's valence and arousal in the
    weight of its loss: 1 for EmotiCrafter, 2 in its code, 0 weighs all alike. Weights have mean 1
    over the rated training images and are at most 10; an image without ratings has 1."""
    times: Literal["logit_normal", "uniform"] = "logit_normal"
    """How the noise levels of training are spread. Ref: SD3, eq. 19; SD1.5 uniform."""
    min_snr: float | None = None
    """γ of the min-SNR weight of the loss (arXiv 2303.09556, 5 there); null weighs all alike."""
    emotional_share: float = 0.0
    """Share of prompts that also say the colour and light that carry the emotion (an image's
    `emotional_prompt`, where it has one): so the decoder learns the words that `emosym refine`
    adds."""
    train_text_encoder: bool = False
    """Train the decoder's text encoder too (only for a base from scratch)."""

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size)
        share(math.inf, label_weight=self.label_weight, affect_weight=self.affect_weight)
        share(2.0, density_weight=self.density_weight)
        if self.min_snr is not None:
            positive(min_snr=self.min_snr)
        share(
            image_share=self.image_share,
            condition_dropout=self.condition_dropout,
            prompt_dropout=self.prompt_dropout,
            label_dropout=self.label_dropout,
            affect_dropout=self.affect_dropout,
            emotional_share=self.emotional_share,
        )


@dataclass(kw_only=True, slots=True)
class ReinforceConfig:
    """RL of the generator from judges of its images. Ref: EmoFeedback² §1.4, Flow-GRPO."""

    batch_size: int = 8
    """Prompts a step."""
    group: int = 8
    """G, images a prompt."""
    algorithm: Literal[
        "flow_grpo", "dance_grpo", "cps", "guard", "cps_guard", "ddpo", "nft", "direct"
    ] = "direct"
    """How judged images move the denoiser, see `train.phases.reinforce.algorithms`."""
    steps: int = 10
    """Sampling steps."""
    guidance: float = 1.0
    """Guidance while sampling; the trained model is saved with it as its default. 1 costs half."""
    window: int = 2
    """Steps that are drawn and trained; of nft, noised copies of an image; direct has one."""
    window_within: float = 0.5
    """Share of the schedule that holds what is trained: from noise on; of direct, up to the
    image."""
    noise: float | None = None
    """η of the drawn steps; null is what is published for the algorithm."""
    clip: float = 1.0e-4
    """The ratio is held in [1 - clip, 1 + clip]: log-probabilities are means over numbers."""
    strength: float = 1.0
    """b of nft."""
    beta: float = 0.04
    """Weight of the squared distance to the outputs of the starting generator."""
    spread: Literal["group", "batch", "none"] = "batch"
    """What advantages are divided by, as in verify_grpo."""
    rewards_apart: bool = False
    """Normalise each reward by itself before they are summed (GDPO)."""
    own_target: float = 0.5
    """Share of prompts that ask for the valence and arousal of their own image; the others ask for
    any of the plane."""
    rewards: dict[str, float] = field(default_factory=lambda: {"affect": 1.0})
    """Judge -> weight; 0 switches it off. The names are those of `model_zoo.judges.registry`."""
    watch: list[str] = field(default_factory=list)
    """Judges that are logged and never trained on, beside AffectWorld's own truth."""
    judges: dict[str, JudgeSpec] = field(default_factory=dict)
    """Judge -> where it comes from; our own frozen understanding branch needs nothing."""
    patience: int = 60
    """Steps after which reward and second judge are compared; the run stops when the one rose
    while the other fell (reinforce/hacking). 0 never stops."""

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size, steps=self.steps, window=self.window)
        positive(strength=self.strength)
        share(own_target=self.own_target, window_within=self.window_within, clip=self.clip)
        share(math.inf, beta=self.beta, guidance=self.guidance, patience=self.patience)
        if self.noise is not None:
            share(noise=self.noise)
        if self.group < 2:
            raise UserError("group must be at least 2", got=self.group)
        self._check_unread()
        within = round(self.steps * self.window_within)
        if self.algorithm not in ("nft", "direct") and self.window > within:
            raise UserError(
                "window is longer than the part of the schedule that holds it",
                got=self.window,
                expected=f"at most steps x window_within = {within}",
            )
        if not any(self.rewards.values()):
            raise UserError("rewards are all switched off", fix="give at least one a weight")
        both = {name for name, weight in self.rewards.items() if weight} & set(self.watch)
        if both:
            raise UserError(
                "a judge that is trained on cannot watch",
                got=", ".join(sorted(both)),
                fix="take it out of rewards or of watch",
            )
        unused = set(self.judges) - set(self.rewards) - set(self.watch)
        if unused:
            raise UserError(
                "judges says where one comes from that is not asked",
                got=", ".join(sorted(unused)),
                fix="name it in rewards or watch, or leave it out",
            )

    def _check_unread(self) -> None:
        """Raise UserError for an option that is set and that the algorithm does not read."""
        unread = {
            "nft": ("noise", "clip", "window_within"),
            "direct": ("noise", "clip", "window", "strength", "spread", "rewards_apart"),
        }.get(self.algorithm, ("strength",))
        known = {each.name: each.default for each in fields(self)}
        for name in unread:
            if getattr(self, name) != known[name]:
                raise UserError(
                    f"{name} has nothing to act on",
                    got=f"{name}={getattr(self, name)} with algorithm={self.algorithm}",
                    fix="leave it out, or choose another algorithm",
                )


@dataclass(kw_only=True, slots=True)
class RememberConfig:
    """Generate, judge, admit. Ref: EmoSym §2.8; the thresholds are those of docs/memory.md."""

    per_emotion: int = 4
    """Images generated for each emotion."""
    generated: str | None = None
    """Manifest, or folder, of images that a generator made already, labelled with what was asked of
    it: they are offered in portions instead of drawing. Null draws with the model."""
    real: int = 32
    """Real training images of each emotion that open the bank."""
    synthetic_share: float = 0.25
    """Largest share of bank images in an understanding batch, at most 0.5."""
    gates: list[str] = field(default_factory=lambda: list(GATES))
    """Gates that are asked, of `memory_bank.admission.gates`."""
    top_share: float = 0.2
    """Share of each emotion's candidates, by judge confidence, that may be admitted."""
    affect_bound: float = 1.0
    """Largest |ΔV| + |ΔA| between asked and judged, in units of [-3, 3]."""
    quality: float = 0.0
    """Quantile of the real images' contrast that an image must reach."""
    novelty: float = 0.95
    """Share of real images that are farther from their nearest than a new image must be from all
    that the bank holds: a quantile of cosines, since every embedder crowds differently."""
    manifold: float = 0.01
    """Share of real images that are as far from their nearest as a new image may at most be."""
    agreement: float = 0.6
    """Share of the ten nearest real images that must have the label asked for."""
    capacity: int = 256
    """Synthetic images kept for each emotion."""
    replacement: Literal[
        "none", "reservoir", "lowest_confidence", "random", "highest_confidence"
    ] = "reservoir"
    """Who leaves a full emotion. highest_confidence is EmoSym as released, to compare with: each
    admitted image evicts the most confident one of the bank, REAL ONES TOO, and batches are drawn
    from the bank alone, whatever `synthetic_share` says."""
    delay: int = 0
    """Steps that an image waits before it is offered."""
    diversity_loss: float = 0.1
    """Admission stops when synthetic images miss more than this share of the diversity (Vendi
    score) of as many real ones; 1 never stops it."""
    admission_low: float = 0.01
    """Admission stops when a smaller share of the last 256 candidates entered."""
    admission_high: float = 0.6
    """Admission stops when a larger share of the last 256 candidates entered."""

    def __post_init__(self) -> None:
        positive(per_emotion=self.per_emotion, affect_bound=self.affect_bound)
        positive(top_share=self.top_share)
        share(0.5, synthetic_share=self.synthetic_share)
        share(top_share=self.top_share, novelty=self.novelty, quality=self.quality)
        share(self.novelty, manifold=self.manifold)
        share(agreement=self.agreement, diversity_loss=self.diversity_loss)
        share(admission_high=self.admission_high)
        share(self.admission_high, admission_low=self.admission_low)
        share(math.inf, real=self.real, capacity=self.capacity, delay=self.delay)
        for gate in self.gates:
            if gate not in GATES:
                raise unknown("gate in remember.gates:", gate, GATES)
        if twice := sorted({gate for gate in self.gates if self.gates.count(gate) > 1}):
            raise UserError(f"remember.gates names {twice[0]} twice", fix="name it once")
        if self.generated is not None and self.delay:
            raise UserError(
                "delay has nothing to act on",
                got="remember.generated, images that no step drew",
                fix="set one of them to 0 or null",
            )


@dataclass(kw_only=True, slots=True)
class AutoencodeConfig:
    """Training of the decoder's VAE (only for a base from scratch)."""

    batch_size: int = 32
    """Images a step."""
    moment_weight: float = 0.05
    """Pull of each latent channel to mean 0 and variance 1, so that no scale is needed."""

    def __post_init__(self) -> None:
        positive(batch_size=self.batch_size)
        share(math.inf, moment_weight=self.moment_weight)
