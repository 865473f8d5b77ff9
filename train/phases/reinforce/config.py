"""Options of reinforce, and those of each of its algorithms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias

from emosym.config import load_config
from emosym.diffusion.transitions import TRANSITIONS
from emosym.errors import UserError
from emosym.rl.scorers import JudgeSpec
from train.ranges import check_positive, check_range


@dataclass(kw_only=True, slots=True)
class PolicyGradientOptions:
    """Options of the algorithms with log-probabilities of sampling steps (Flow-GRPO and others)."""

    sde_window_size: int = 2
    """Sampling steps that are drawn at random, and trained. Ref: MixGRPO (arXiv 2507.21802)."""
    sde_window_range: float = 0.5
    """Share of the schedule, counted from pure noise, in which the window lies."""
    noise_level: float | None = None
    """η of the drawn steps; null is the value published for the algorithm."""
    epsilon: float = 1.0e-4
    """The ratio is clipped to [1 - epsilon, 1 + epsilon]; log-probabilities are means over latent
    values, so ratios are close to 1."""
    kl_type: Literal["transition", "output"] = "transition"
    """What `beta` weighs: the divergence of a drawn step from that of the starting generator, for
    which the values of Flow-GRPO, GRPO-Guard and DPOK are published; or the mean squared distance
    of the denoisers' outputs (velocities, for a flow), the same at all noise levels."""
    scale_rewards: Literal["group", "batch", "none"] = "batch"
    """What advantages are divided by, as in verify_grpo."""
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = (
        "sum_then_normalize"
    )
    """Normalise the sum of rewards, or each reward before they are summed (GDPO)."""

    def __post_init__(self) -> None:
        check_positive(sde_window_size=self.sde_window_size)
        check_range(sde_window_range=self.sde_window_range, epsilon=self.epsilon)
        if self.noise_level is not None:
            check_range(noise_level=self.noise_level)
            check_positive(noise_level=self.noise_level)


@dataclass(kw_only=True, slots=True)
class NftOptions:
    """Options of DiffusionNFT (arXiv 2509.16117)."""

    noised_copies: int = 2
    """Copies of each sampled image, each with a noise level of its own, that are trained on."""
    nft_beta: float = 1.0
    """β of DiffusionNFT: how far its two implied policies are from the one that sampled."""
    scale_rewards: Literal["group", "batch", "none"] = "batch"
    """What advantages are divided by, as in verify_grpo."""
    multi_objective_aggregation: Literal["sum_then_normalize", "normalize_then_sum"] = (
        "sum_then_normalize"
    )
    """Normalise the sum of rewards, or each reward before they are summed (GDPO)."""

    def __post_init__(self) -> None:
        check_positive(noised_copies=self.noised_copies, nft_beta=self.nft_beta)


@dataclass(kw_only=True, slots=True)
class DirectOptions:
    """Options of the gradient of the judge itself (ReFL, arXiv 2304.05977)."""

    gradient_range: float = 0.5
    """Share of the schedule, up to the image, from which the step with gradient is drawn."""

    def __post_init__(self) -> None:
        check_range(gradient_range=self.gradient_range)


AlgorithmOptions: TypeAlias = PolicyGradientOptions | NftOptions | DirectOptions
OPTIONS: Mapping[str, type[AlgorithmOptions]] = {
    **dict.fromkeys(TRANSITIONS, PolicyGradientOptions),
    "nft": NftOptions,
    "direct": DirectOptions,
}
"""Algorithm -> class of its options."""


@dataclass(kw_only=True, slots=True)
class ReinforceConfig:
    """RL of the generator from judges of its images. Ref: EmoFeedback², generator; Flow-GRPO."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "group": "num_images_per_prompt",
        "steps": "num_inference_steps",
        "guidance": "guidance_scale",
        "rewards": "reward_weights",
        "window": "algorithm_options.sde_window_size",
        "window_within": "algorithm_options.sde_window_range",
        "noise": "algorithm_options.noise_level",
        "clip": "algorithm_options.epsilon",
        "strength": "algorithm_options.nft_beta",
        "spread": "algorithm_options.scale_rewards",
        "rewards_apart": "algorithm_options.multi_objective_aggregation",
    }
    """With algorithm nft, `window` is `algorithm_options.noised_copies`; with direct,
    `window_within` is `algorithm_options.gradient_range`."""

    batch_size: int = 8
    """Prompts a step."""
    num_images_per_prompt: int = 8
    """G, images a prompt."""
    steps_per_generation: int = 1
    """Optimizer updates that a step's prompts are divided into. As TRL's option of that name."""
    num_iterations: int = 1
    """Passes over a step's images, each of all its updates. As TRL's option of that name. With one
    update a step the policy is the one that sampled: `epsilon` and `nft_beta` have no effect."""
    algorithm: Literal[
        "flow_grpo", "dance_grpo", "cps", "guard", "cps_guard", "ddpo", "nft", "direct"
    ] = "direct"
    """How scores become a gradient of the denoiser, see `train.phases.reinforce.algorithms`."""
    algorithm_options: dict[str, Any] = field(default_factory=dict)
    """Options of the algorithm: fields of its class in `OPTIONS`. What is not given is default."""
    num_inference_steps: int = 10
    """Sampling steps."""
    guidance_scale: float = 1.0
    """Scale of classifier-free guidance while sampling; it becomes the default of the saved model.
    At 1 there is no guidance, and sampling costs half."""
    beta: float = 0.04
    """Weight of the distance to the starting generator: of `kl_type` with log-probabilities, else
    the mean squared distance of the denoisers' outputs."""
    own_target: float = 0.5
    """Share of requests with the valence and arousal of the prompt's own image; the others have a
    random point of the plane."""
    reward_weights: dict[str, float] = field(default_factory=lambda: {"affect": 1.0})
    """Judge -> weight; 0 switches it off. The names are those of `model_zoo.judges.registry`."""
    watch: list[str] = field(default_factory=list)
    """Judges that are logged and never trained on, beside AffectWorld's own truth."""
    judges: dict[str, JudgeSpec] = field(default_factory=dict)
    """Judge -> its model. `affect` and `label` need no entry: they use the frozen understander."""
    max_unjudged: float = 0.1
    """Largest share of a step's images without a score, because a judge's answer cannot be read.
    Such an image is left out of its group. If there are more of them, or a group has fewer than two
    scores, the images are drawn again; after three such draws the run stops."""
    patience: int = 60
    """Steps over which the reward is compared with the judges of `watch`. The run stops when the
    reward rose while they fell (metric reinforce/hacking); 0 never stops."""

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size, num_inference_steps=self.num_inference_steps)
        check_positive(
            steps_per_generation=self.steps_per_generation, num_iterations=self.num_iterations
        )
        check_range(own_target=self.own_target, max_unjudged=self.max_unjudged)
        check_range(math.inf, beta=self.beta, guidance_scale=self.guidance_scale)
        check_range(math.inf, patience=self.patience)
        if self.num_images_per_prompt < 2:
            raise UserError(
                "num_images_per_prompt must be at least 2", got=self.num_images_per_prompt
            )
        self._check_window(self.options())
        if not any(self.reward_weights.values()):
            raise UserError("reward_weights are all 0", fix="give at least one a weight")
        both = {name for name, weight in self.reward_weights.items() if weight} & set(self.watch)
        if both:
            raise UserError(
                "a judge that is trained on cannot watch",
                got=", ".join(sorted(both)),
                fix="remove it from reward_weights or from watch",
            )
        unused = set(self.judges) - set(self.reward_weights) - set(self.watch)
        if unused:
            raise UserError(
                "judges has a judge that is not used",
                got=", ".join(sorted(unused)),
                fix="name it in reward_weights or watch, or leave it out",
            )

    def options(self) -> AlgorithmOptions:
        """Return the options of the algorithm.

        Raises:
            UserError: an option that the algorithm does not have, a bad value.
        """
        cls = OPTIONS[self.algorithm]
        known = [each.name for each in fields(cls)]
        for name in self.algorithm_options:
            if name not in known:
                raise UserError(
                    f"algorithm_options.{name}: unknown key",
                    got=f"algorithm={self.algorithm}",
                    expected=f"one of {', '.join(known)}",
                    fix="leave it out, or choose another algorithm",
                )
        try:
            return load_config(cls, None, base=self.algorithm_options)
        except UserError as error:
            problem = str(error).removeprefix("configuration: ").removesuffix(" (in base)")
            raise UserError(f"algorithm_options of {self.algorithm}: {problem}") from error

    def _check_window(self, options: AlgorithmOptions) -> None:
        if not isinstance(options, PolicyGradientOptions):
            return
        longest = round(self.num_inference_steps * options.sde_window_range)
        if options.sde_window_size > longest:
            raise UserError(
                "algorithm_options.sde_window_size is longer than the part of the schedule that"
                " holds the window",
                got=options.sde_window_size,
                expected=f"at most num_inference_steps x sde_window_range = {longest}",
            )
