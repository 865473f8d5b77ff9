"""All tasks and all rewards by name. A new one is one line here, or one call in a plugin."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import SupportsFloat

from emosym.errors import UserError
from emosym.plugins import Registry, check_fields, check_function
from emosym.records import Question
from emosym.tasks.affect import AFFECT
from emosym.tasks.assessment import AROUSAL, DOMINANCE, VALENCE
from emosym.tasks.base import Answer, Reader, Reward, Task
from emosym.tasks.criticise import CRITICISE
from emosym.tasks.description import DESCRIPTION
from emosym.tasks.dominant import DOMINANT
from emosym.tasks.perception import PERCEPTION
from emosym.tasks.ranking import RANKING
from emosym.tasks.rewards import FORMAT, LENGTH
from emosym.tasks.rewrite import REWRITE


def _check_reward(name: str, reward: object) -> None:
    """Raise UserError for what cannot be a reward."""
    check_fields(f"the reward {name!r}", reward, Reward, {"score": 2})
    if isinstance(reward, Reward) and not _texts(reward.keys):
        raise UserError(
            f"keys of the reward {name!r}", got=repr(reward.keys), expected="a tuple of names"
        )
    if name == "total":
        raise UserError("a reward cannot be named 'total'", got="the name of the weighted sum")


def _check_task(name: str, task: object) -> None:
    """Raise UserError for what cannot be a task."""
    what = f"the task {name!r}"
    check_fields(what, task, Task, {"measure": 1})
    if not isinstance(task, Task):
        return
    if task.name != name:
        raise UserError(f"{what} has another name", got=repr(task.name), expected=repr(name))
    if task.build is not None:
        check_function(f"build of {what}", task.build, 2)
    for key, reader in task.readers.items():
        check_fields(f"the reader {key!r} of {what}", reader, Reader, {"read": 2, "find": 2})
    for reward, one in task.rewards.items():
        _check_reward(reward, one)
    for metric, entry in task.metrics.items():
        if not isinstance(entry, tuple) or len(entry) != 2 or entry[1] not in ("higher", "lower"):
            raise UserError(
                f"the metric {metric!r} of {what}",
                got=repr(entry),
                expected='(title, "higher") or (title, "lower")',
            )


def _texts(values: object) -> bool:
    return isinstance(values, tuple) and all(isinstance(value, str) for value in values)


TASKS: Registry[Task] = Registry(
    "task",
    {
        "affect": AFFECT,
        "valence": VALENCE,
        "arousal": AROUSAL,
        "dominance": DOMINANCE,
        "ranking": RANKING,
        "dominant": DOMINANT,
        "perception": PERCEPTION,
        "description": DESCRIPTION,
        "criticise": CRITICISE,
        "rewrite": REWRITE,
    },
    _check_task,
)
"""Name -> task. `affect` is EmoSym's question; `criticise` and `rewrite` are from EmoFeedback²
(arXiv 2511.19982), the others from EEmo-Logic (arXiv 2602.01173), whose assessment task is split
into valence, arousal and dominance."""

REWARDS: Registry[Reward] = Registry(
    "reward",
    {
        "format": FORMAT,
        **{name: reward for task in TASKS.values() for name, reward in task.rewards.items()},
        "length": LENGTH,
    },
    _check_reward,
)
"""Name -> reward: those of any answer, and those of every task."""


def register_task(task: Task) -> None:
    """Add a task and its rewards; a plugin file calls this. `REWARDS.register` adds a reward alone.

    Raises:
        UserError: its name or the name of one of its rewards is taken, or another task reads one of
            the keys of its answers in another way.
    """
    if not isinstance(task, Task):
        raise UserError("this is not a task", got=type(task).__name__, expected="a Task")
    TASKS.check(task.name, task)
    rewards = {name: one for name, one in task.rewards.items() if REWARDS.get(name) is not one}
    for key, reader in task.readers.items():
        if reader_of(key) not in (None, reader):
            raise UserError(
                f"the answer key {key!r} of the task {task.name!r} has another reader already",
                fix="choose another key, or use that reader",
            )
    for name, reward in rewards.items():
        REWARDS.register(name, reward)
    TASKS.register(task.name, task)


def image_tasks() -> list[str]:
    """Return the tasks whose question is the same for every single image."""
    return [name for name, task in TASKS.items() if task.prompt is not None]


def reader_of(key: str) -> Reader | None:
    """Return the reader of an answer key, whichever task it belongs to; None for an unknown key."""
    return next((task.readers[key] for task in TASKS.values() if key in task.readers), None)


def score(answer: Answer, question: Question, weights: Mapping[str, float]) -> dict[str, float]:
    """Return each named reward that applies to the question, and their weighted sum as `total`.

    Raises:
        UserError: an unknown reward, or a reward that is not finite (names the question).
    """
    rewards: dict[str, float] = {}
    for name in weights:
        reward = REWARDS.look_up(name)
        if not reward.applies(question):
            continue
        value: object = reward.score(answer, question)
        if not isinstance(value, SupportsFloat) or not math.isfinite(value):
            raise UserError(f"reward {name!r} is not finite for {question.id}", got=repr(value))
        rewards[name] = float(value)
    rewards["total"] = sum(weights[name] * value for name, value in rewards.items())
    return rewards
