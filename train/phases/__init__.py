"""The phases of training; a new kind of step is a new entry here."""

from train.phases.autoencode import Autoencode
from train.phases.compress import Compress
from train.phases.generate import Generate
from train.phases.remember import Remember
from train.phases.verify import VerifyGrpo, VerifyPosterior

PHASES = {
    phase.name: phase
    for phase in (Autoencode, Compress, VerifyPosterior, VerifyGrpo, Generate, Remember)
}
"""Name in a stage's cycle -> class, built once a run from the `Bench`."""
