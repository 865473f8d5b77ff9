"""TRL's GRPOTrainer on one of our backbones: what our own GRPO is measured against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from PIL import Image
from transformers import ProcessorMixin, Qwen2_5_VLProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from model_zoo.backbones.qwen_vl import QwenVL, QwenVLProcessor


class ImagesOnly(Qwen2_5_VLProcessor):
    """The published processor without videos, which would need torchvision."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **_) -> None:
        self.image_token = "<|image_pad|>"
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token, self.video_token_id = None, -1
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class Clock(TrainerCallback):
    """Times whole steps: rollout, rewards, reference, update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, *_, **__) -> None:
        """Start the clock."""
        self.begun = time.monotonic()

    def on_step_end(self, *_, **__) -> None:
        """Stop it."""
        self.seconds.append(time.monotonic() - self.begun)


def trl_grpo(
    folder: Path,
    backbone: QwenVL,
    processor: QwenVLProcessor,
    pictures: Sequence[Image.Image],
    question: str,
    reward: Callable[[str], float],
    *,
    batch: int,
    group: int,
    tokens: int,
    beta: float,
    rate: float,
) -> Callable[[int], list[float]]:
    """Set TRL up on a Qwen2.5-VL; return what runs steps and tells the seconds of each.

    Args:
        folder: where the backbone is written: TRL loads policy and reference from there.
        backbone: the model, in float32.
        processor: its processor.
        pictures: the dataset, one question each.
        question: the user's text.
        reward: of an answer's text.
        batch: completions a step.
        group: completions a prompt.
        tokens: longest completion.
        beta: weight of the KL.
        rate: learning rate.
    """

    def rewards(completions, **_) -> list[float]:
        return [reward(said[0]["content"]) for said in completions]

    backbone.model.save_pretrained(folder)
    asked = [{"role": "user", "content": question}]
    trainer = GRPOTrainer(
        str(folder),
        reward_funcs=[rewards],
        args=GRPOConfig(
            output_dir=str(folder / "out"),
            per_device_train_batch_size=batch,
            num_generations=group,
            max_completion_length=tokens,
            gradient_accumulation_steps=1,
            steps_per_generation=1,
            beta=beta,
            epsilon_high=0.28,
            learning_rate=rate,
            lr_scheduler_type="constant",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(
            {"prompt": [asked] * len(pictures), "image": list(pictures)}
        ),
        processing_class=ImagesOnly(
            processor.images, processor.tokenizer, processor.tokenizer.chat_template
        ),
    )
    clock = Clock()
    trainer.add_callback(clock)

    def run(steps: int) -> list[float]:
        clock.seconds = []
        trainer.args.max_steps = steps
        trainer.train()
        return clock.seconds

    return run
