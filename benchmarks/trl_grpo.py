"""TRL's GRPOTrainer with one of our backbones, the baseline of `benchmarks.grpo`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from PIL import Image
from transformers import ProcessorMixin, Qwen2_5_VLProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from benchmarks.timing import Run
from model_zoo.backbones.processor import QwenVLProcessor
from model_zoo.backbones.qwen_vl import QwenVL


class ImagesOnly(Qwen2_5_VLProcessor):
    """The processor of transformers without videos, which would need torchvision."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        **_: object,
    ) -> None:
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token, self.video_token_id = None, -1
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class StepTimer(TrainerCallback):
    """Measures whole steps: rollout, rewards, reference, update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_: object, **__: object) -> None:
        """Note the start of a step."""
        self.start = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        """Append the seconds of the step."""
        self.seconds.append(time.perf_counter() - self.start)


def trl_grpo(
    folder: Path,
    backbone: QwenVL,
    processor: QwenVLProcessor,
    images: Sequence[Image.Image],
    question: str,
    reward: Callable[[str], float],
    *,
    batch_size: int,
    num_generations: int,
    max_completion_length: int,
    beta: float,
    learning_rate: float,
) -> Run:
    """Set up GRPOTrainer on a Qwen2.5-VL.

    Args:
        folder: the backbone is written there; TRL loads policy and reference from it.
        backbone: the model, in float32.
        processor: its processor.
        images: the dataset; each image is one prompt.
        question: the user's text, the same for all.
        reward: completion -> reward.
        batch_size: completions a step.
        num_generations: completions a prompt.
        max_completion_length: in tokens.
        beta: weight of the KL.
        learning_rate: constant.
    """

    def rewards(completions: Sequence[Any], **_: object) -> list[float]:
        return [reward(completion[0]["content"]) for completion in completions]

    backbone.model.save_pretrained(folder)
    prompt = [{"role": "user", "content": question}]
    trainer = GRPOTrainer(
        str(folder),
        reward_funcs=[rewards],
        args=GRPOConfig(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=batch_size,
            num_generations=num_generations,
            max_completion_length=max_completion_length,
            gradient_accumulation_steps=1,
            steps_per_generation=1,
            beta=beta,
            epsilon_high=0.28,
            learning_rate=learning_rate,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": [prompt] * len(images), "image": list(images)}),
        processing_class=ImagesOnly(
            processor.images, processor.tokenizer, processor.tokenizer.chat_template
        ),
    )
    timer = StepTimer()
    trainer.add_callback(timer)

    def run(steps: int) -> list[float]:
        timer.seconds = []
        trainer.args.max_steps = steps
        trainer.train()
        return timer.seconds

    return run
