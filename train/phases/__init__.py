"""The phases of training; a new kind of step is a new entry here."""

from train.phases.autoencode import Autoencode
from train.phases.compress import Compress
from train.phases.generate import Generate
from train.phases.instruct import Instruct
from train.phases.reinforce.phase import Reinforce
from train.phases.remember.phase import Remember
from train.phases.verify_grpo import VerifyGrpo
from train.phases.verify_posterior import VerifyPosterior

PHASES = {
    phase.name: phase
    for phase in (
        Autoencode,
        Compress,
        Instruct,
        VerifyPosterior,
        VerifyGrpo,
        Generate,
        Reinforce,
        Remember,
    )
}
"""Name in a stage's cycle -> class, built once a run from the `PhaseContext`."""
