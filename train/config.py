"""What a run is made of. Sizes are global: all ranks and accumulation steps together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal

from emosym.errors import UserError, unknown
from emosym.scorers import JudgeSpec
from memory_bank.gates import GATES


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise UserError(f"{name} must be positive", got=value)


def _share(most: float = 1.0, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= most:
            raise UserError(f"{name} must lie in [0, {most:g}]", got=value)


STEPS = 9_999_999
"""Most steps of a run: the names of checkpoints have seven digits."""


@dataclass(kw_only=True, slots=True)
class WorldConfig:
    """An AffectWorld drawn into the run folder."""

    count: int = 0
    """Images; 0 draws none."""
    seed: int = 0
    """Seed of the drawing."""

    def __post_init__(self) -> None:
        _share(math.inf, count=self.count)
        _share(2**63 - 1, seed=self.seed)


@dataclass(kw_only=True, slots=True)
class InstructionsConfig:
    """Files of questions with their answers, of a layout that `data_tools.eemodb` reads."""

    train: str | None = None
    """Questions to learn from."""
    test: str | None = None
    """Held-out questions."""
    images: str | None = None
    """Folder of the images that the files name."""

    def __post_init__(self) -> None:
        if (self.train or self.test) and not self.images:
            raise UserError("images is missing", fix="name the folder of the files' images")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where images come from (`path`, or a drawn `world`), and what is asked about them."""

    path: str | None = None
    """Manifest file, or folder of a known layout (see `emosym data`)."""
    world: WorldConfig = field(default_factory=WorldConfig)
    """Used when `path` is null."""
    tasks: list[str] = field(default_factory=lambda: ["affect"])
    """Questions made of the images' facts, each a task of `emosym.prompts.TASKS`, in equal shares;
    phases `instruct` and `verify_grpo` learn from them."""
    reasons: bool = True
    """Their reference answers first say the knowledge text, in <think></think>; else they think
    nothing. EEmo-Logic's first stage has answers alone."""
    instructions: InstructionsConfig = field(default_factory=InstructionsConfig)
    """More questions."""
    lexicon_spread: float | None = None
    """Give labelled images without valence and arousal those of their label's word, drawn with this
    share of the raters' deviation. Ref: EmoFeedback²; null gives none."""
    flip: bool = False
    """Mirror half of the training images (understanding only)."""
    crop: float = 1.0
    """Smallest side of a random training crop, as a share; 1 does not crop."""
    image_cache: int = 4096
    """Decoded images kept in memory."""

    def __post_init__(self) -> None:
        _positive(crop=self.crop, image_cache=self.image_cache)
        if self.lexicon_spread is not None:
            _share(lexicon_spread=self.lexicon_spread)
        _share(crop=self.crop)


@dataclass(kw_only=True, slots=True)
class StageConfig:
    """A stretch of steps that repeats one cycle of phases."""

    steps: int
    """Optimizer steps of the stage, all phases together."""
    cycle: dict[str, int]
    """Phase -> consecutive steps in one turn of the cycle, in this order."""

    def __post_init__(self) -> None:
        named = {f"cycle.{name}": steps for name, steps in self.cycle.items()}
        for name, steps in {"steps": self.steps, **named}.items():
            if not 1 <= steps <= STEPS:
                raise UserError(f"{name} must lie in [1, {STEPS}]", got=steps)
        if not self.cycle:
            raise UserError("cycle is empty", fix="name at least one phase")


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW for one part."""

    lr: float = 1.0e-3
    """Peak learning rate."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup: int = 50
    """Steps of linear warm-up, counted over the steps that move this part."""
    decay: Literal["constant", "linear", "cosine"] = "cosine"
    """After warm-up: hold, or fall along a line or a half cosine to `floor`."""
    floor: float = 0.05
    """Share of `lr` at the end of the fall."""
    clip: float = 1.0
    """Largest gradient norm; 0 does not clip."""
    ema: float | None = None
    """Decay, in (0, 1), of an average of the part's weights: the run's `model/` and what is
    measured after training are the average's. Null keeps none. Ref: Flow-GRPO (0.9)."""
    ema_every: int = 1
    """Steps that move the part between two updates of its average; 8 for Flow-GRPO."""

    def __post_init__(self) -> None:
        _share(math.inf, lr=self.lr, weight_decay=self.weight_decay, clip=self.clip)
        _share(math.inf, warmup=self.warmup)
        _share(floor=self.floor)
        _positive(ema_every=self.ema_every)
        if self.ema is not None and not 0 < self.ema < 1:
            raise UserError("ema must be in (0, 1), or null", got=self.ema)


@dataclass(kw_only=True, slots=True)
class EngineConfig:
    """DeepSpeed."""

    zero_stage: Literal[1, 2] = 2
    """Partition optimizer states (1), and gradients (2)."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Type of weights and activations in training."""
    accumulation: int = 1
    """Micro-batches a step: raise it when memory is short. The step stays the same, but for
    what looks at a micro-batch: compress contrasts an image with the texts of its own micro-batch
    only and measures the distance of distillation in the spread of its own, verify_posterior weighs
    the KL by that of its own, verify_grpo counts tokens (and spreads rewards over the batch) in its
    own, autoencode takes the moments of its own (and of its own rank)."""
    gradient_checkpointing: bool = False
    """Recompute the layers of backbone and denoiser in the backward pass: less memory, more time.
    The numbers stay the same. Such a backbone keeps no cache: verify_grpo then reads a prompt once
    for each of its answers, not once for its group."""
    understander: OptimizerConfig = field(default_factory=OptimizerConfig)
    generator: OptimizerConfig = field(default_factory=OptimizerConfig)
    autoencoder: OptimizerConfig = field(default_factory=OptimizerConfig)


@dataclass(kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters of one part; its own layers are frozen."""

    rank: int
    """64 for EmoSym's understander, 32 for Flow-GRPO's decoder."""
    alpha: float
    """The update is scaled by alpha / rank; 128 and 64 there."""
    dropout: float = 0.0
    """Share of inputs hidden from an adapter in training, 0.05 for EmoSym; none in verify_grpo,
    whose answers are sampled and read by the same policy, nor where remember draws. Resuming stays
    exact, but ranks draw for themselves: only at 0 do two ranks equal one."""
    vision: bool = False
    """Of the understander: adapt the vision tower too (EEmo-Logic)."""

    def __post_init__(self) -> None:
        _positive(rank=self.rank, alpha=self.alpha)
        if not 0 <= self.dropout < 1:
            raise UserError("dropout must be in [0, 1)", got=self.dropout)


@dataclass(kw_only=True, slots=True)
class AdaptersConfig:
    """Which parts train through adapters; reasoner, heads and conditioner always train whole."""

    understander: LoraConfig | None = None
    """On all linear layers of the language model; embeddings, output projection and, but for its
    own adapters, the vision tower are frozen. Null trains everything."""
    generator: LoraConfig | None = None
    """On the attention of the decoder's transformer. Null trains everything."""


@dataclass(kw_only=True, slots=True)
class CompressConfig:
    """Emotional reasoning knowledge compression. Ref: EmoSym §2.4."""

    batch_size: int = 32
    """Images a step."""
    label_weight: float = 0.5
    """Cross-entropy on the label."""
    knowledge_weight: float = 0.5
    """InfoNCE of the reasoning tokens against the knowledge text."""
    affect_weight: float = 1.0
    """Smooth L1 on valence and arousal (ours; 0 as published)."""
    language_weight: float = 0.0
    """Language loss on the reference answer (ours; 0 as published)."""
    distil_weight: float = 0.0
    """Self-distillation of the state at [EMO] (ours, after CODI; 1 there): it shall be what it is
    after the knowledge in words. The reading of the words learns label, valence and arousal too, at
    the weights above."""
    reconstruct_weight: float = 0.0
    """Language loss on the knowledge text, told from the reasoning states alone (ours, after ICAE;
    try 0.1). The language model of the start tells it, frozen, so that only the states can learn.
    """
    knowledge_encoder: str | None = None
    """Encodes the knowledge texts: `decoder` (its own text encoder), `sentence` (all-MiniLM-L6-v2
    of the extra `text`), or the folder or hub id of a CLIP text tower. Null keeps the one that the
    model's knowledge head was made for; another one gets a new head."""

    def __post_init__(self) -> None:
        _positive(batch_size=self.batch_size)
        _share(
            math.inf,
            label_weight=self.label_weight,
            knowledge_weight=self.knowledge_weight,
            affect_weight=self.affect_weight,
            language_weight=self.language_weight,
            distil_weight=self.distil_weight,
            reconstruct_weight=self.reconstruct_weight,
        )


@dataclass(kw_only=True, slots=True)
class InstructConfig:
    """Instruction tuning. Ref: EEmo-Logic §3.5, stage 1."""

    batch_size: int = 32
    """Questions a step."""

    def __post_init__(self) -> None:
        _positive(batch_size=self.batch_size)


@dataclass(kw_only=True, slots=True)
class VerifyPosteriorConfig:
    """RL with the differentiable class-posterior reward. Ref: EmoSym §2.5."""

    batch_size: int = 32
    """Images a step."""
    affect_weight: float = 1.0
    """Smooth L1 on valence and arousal (ours; 0 as published)."""
    hard_negatives: float = 0.0
    """Largest share of a batch, at most 0.5, that are real images of the bank with nearly the
    prompt of another image of it, and another emotion."""

    def __post_init__(self) -> None:
        _positive(batch_size=self.batch_size)
        _share(math.inf, affect_weight=self.affect_weight)
        _share(0.5, hard_negatives=self.hard_negatives)


@dataclass(kw_only=True, slots=True)
class VerifyGrpoConfig:
    """GRPO on sampled answers. Ref: EEmo-Logic §3.5, EmoFeedback² §1.3."""

    batch_size: int = 8
    """Prompts (images) a step."""
    group: int = 8
    """G, answers a prompt."""
    answer_tokens: int = 64
    """Longest answer."""
    temperature: float = 1.0
    """Of sampling."""
    loss: Literal["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo", "sapo"] = "dapo"
    """Policy loss, see `emosym.policy`."""
    clip: float = 0.2
    """The ratio is held above 1 - clip."""
    clip_high: float = 0.28
    """The ratio is held below 1 + clip_high; as `clip` where nothing else was published."""
    beta: float = 0.04
    """Weight of the KL to the reference; 0 does not read with the reference."""
    spread: Literal["group", "batch", "none"] = "group"
    """What advantages are divided by: the deviation in the group, in the batch, or nothing."""
    rewards_apart: bool = False
    """Normalise each reward by itself before they are summed (GDPO)."""
    mask_truncated: bool = False
    """An answer that was cut at `answer_tokens` teaches nothing."""
    rewards: dict[str, float] = field(
        default_factory=lambda: {"format": 1.0, "emotion": 1.0, "affect_threshold": 1.0}
    )
    """Reward -> weight; 0 switches it off."""

    def __post_init__(self) -> None:
        _positive(batch_size=self.batch_size, answer_tokens=self.answer_tokens)
        _positive(temperature=self.temperature)
        _share(math.inf, clip_high=self.clip_high, beta=self.beta)
        _share(clip=self.clip)
        if self.group < 2:
            raise UserError("group must be at least 2", got=self.group)
        if not any(self.rewards.values()):
            raise UserError("rewards are all switched off", fix="give at least one a weight")


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
        _positive(batch_size=self.batch_size)
        _share(math.inf, label_weight=self.label_weight, affect_weight=self.affect_weight)
        _share(2.0, density_weight=self.density_weight)
        if self.min_snr is not None:
            _positive(min_snr=self.min_snr)
        _share(
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
    """How judged images move the denoiser, see `train.phases.reinforcement`."""
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
    """Judge -> weight; 0 switches it off. The names are those of `model_zoo.judges`."""
    watch: list[str] = field(default_factory=list)
    """Judges that are logged and never trained on, beside AffectWorld's own truth."""
    judges: dict[str, JudgeSpec] = field(default_factory=dict)
    """Judge -> where it comes from; our own frozen understanding branch needs nothing."""
    patience: int = 60
    """Steps after which reward and second judge are compared; the run stops when the one rose
    while the other fell (reinforce/hacking). 0 never stops."""

    def __post_init__(self) -> None:
        _positive(batch_size=self.batch_size, steps=self.steps, window=self.window)
        _positive(strength=self.strength)
        _share(own_target=self.own_target, window_within=self.window_within, clip=self.clip)
        _share(math.inf, beta=self.beta, guidance=self.guidance, patience=self.patience)
        if self.noise is not None:
            _share(noise=self.noise)
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
    """Gates that are asked, of `memory_bank.gates`."""
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
        _positive(per_emotion=self.per_emotion, affect_bound=self.affect_bound)
        _positive(top_share=self.top_share)
        _share(0.5, synthetic_share=self.synthetic_share)
        _share(top_share=self.top_share, novelty=self.novelty, quality=self.quality)
        _share(self.novelty, manifold=self.manifold)
        _share(agreement=self.agreement, diversity_loss=self.diversity_loss)
        _share(admission_high=self.admission_high)
        _share(self.admission_high, admission_low=self.admission_low)
        _share(math.inf, real=self.real, capacity=self.capacity, delay=self.delay)
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
        _positive(batch_size=self.batch_size)
        _share(math.inf, moment_weight=self.moment_weight)


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """What is measured before and after, on held-out images and prompts only."""

    before: bool = True
    """Measure the starting model too."""
    images: int = 256
    """Held-out images to understand; 0 skips it."""
    answers: bool = True
    """Also sample an answer in words for each (slower)."""
    requests: int = 64
    """Held-out requests to draw; 0 skips it."""
    per_request: int = 2
    """Images for each request."""
    grids: int = 3
    """Prompts in the V-A grid of the report."""
    questions: int = 0
    """Held-out questions of each task to answer in words; 0 skips it."""

    def __post_init__(self) -> None:
        _share(math.inf, images=self.images, requests=self.requests, grids=self.grids)
        _share(math.inf, questions=self.questions)
        _positive(per_request=self.per_request)


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """A run."""

    model: str = "emosym-tiny"
    """Member of the zoo, or a model folder."""
    from_scratch: bool = False
    """Start from random weights instead of the member's (needs a member's name)."""
    reasoning_tokens: int | None = None
    """K; null keeps the model's. Another number than the model's starts these tokens anew. The
    frozen reference, judge of `remember` and anchor of `verify`, starts with the same ones: teach
    them with `compress` first, and give the model it leaves to a run of the other phases."""
    seed: int = 0
    """All randomness follows from it and the step."""
    data: DataConfig = field(default_factory=DataConfig)
    stages: list[StageConfig]
    """Run in this order."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    lora: AdaptersConfig = field(default_factory=AdaptersConfig)
    freeze: list[Literal["backbone", "denoiser"]] = field(default_factory=list)
    """Pretrained parts that do not train at all: without its backbone the understander learns
    through reasoning tokens and heads, without its denoiser the generator through the conditioner
    (EmoSym, step 3)."""
    compress: CompressConfig = field(default_factory=CompressConfig)
    instruct: InstructConfig = field(default_factory=InstructConfig)
    verify_posterior: VerifyPosteriorConfig = field(default_factory=VerifyPosteriorConfig)
    verify_grpo: VerifyGrpoConfig = field(default_factory=VerifyGrpoConfig)
    generate: GenerateConfig = field(default_factory=GenerateConfig)
    reinforce: ReinforceConfig = field(default_factory=ReinforceConfig)
    remember: RememberConfig = field(default_factory=RememberConfig)
    autoencode: AutoencodeConfig = field(default_factory=AutoencodeConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    save_every: int = 200
    """Steps between checkpoints."""
    keep: int = 2
    """Checkpoints kept."""

    def __post_init__(self) -> None:
        _positive(save_every=self.save_every, keep=self.keep)
        _positive(accumulation=self.engine.accumulation)
        _share(2**63 - 1, seed=self.seed)
        if self.lora.generator is not None and self.lora.generator.vision:
            raise UserError("lora.generator.vision is true, but a decoder has no vision tower")
        if self.lora.generator is not None and self.generate.train_text_encoder:
            raise UserError(
                "lora.generator freezes the decoder, but generate.train_text_encoder trains a part",
                fix="set one of them to null or false",
            )
        adapted = {"backbone": self.lora.understander, "denoiser": self.lora.generator}
        for part in self.freeze:
            if adapted[part] is not None:
                raise UserError(
                    f"freeze names the {part}, which lora adapts", fix="leave one of them out"
                )
        if "denoiser" in self.freeze and self.generate.train_text_encoder:
            raise UserError(
                "freeze names the denoiser, but generate.train_text_encoder trains a part of it",
                fix="set one of them to [] or false",
            )
        _share(math.inf, reasoning_tokens=self.reasoning_tokens or 0)
        if self.from_scratch and self.compress.reconstruct_weight:
            raise UserError(
                "compress.reconstruct_weight needs a language model that can tell a text",
                got="from_scratch=true, whose starting weights are random",
                fix="set it to 0, or train a base with compress.language_weight first",
            )
        if not self.stages:
            raise UserError("stages is empty", fix="name at least one stage")
        if sum(stage.steps for stage in self.stages) > STEPS:
            raise UserError(f"all stages together must lie in [1, {STEPS}] steps")
