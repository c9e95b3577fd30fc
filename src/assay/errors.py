"""The errors a user can cause, drawn as a tree; open it to see what a verb may refuse and with which exit code.

AssayError
├── UserError            exit code 2: one line says where, what was given, what is allowed, what to do
│   ├── ConfigError      a key or value of params.yaml, or a combination of them
│   ├── DataError        a data set or BIDS folder that is missing, truncated, or not what its manifest says
│   ├── CheckpointError  a checkpoint that is missing, damaged, or belongs to another run
│   ├── SchedulerError   Slurm or another scheduler does not answer, or refuses a job
│   └── RunBusyError     another attempt of the same run is running
├── SupersededError      exit code 1: a newer attempt of the run has begun; this one may not write any more
├── PeerLostError    exit code 71: the other ranks of a training have gone; the one that failed says why
├── Unfinished           exit code 75: stopped on request with a checkpoint; start the same run again to go on
└── NonFiniteError       exit code 1: training met NaN or Inf; names the step and the tensor
"""


class AssayError(Exception):
    """Anything that assay refuses or reports on purpose. `exit_code` is what the process ends with."""

    exit_code = 1


class UserError(AssayError):
    """Something the user gave is wrong; the message is one line that says how to put it right."""

    exit_code = 2


class ConfigError(UserError):
    """A key or value of a parameter file is wrong, or several contradict each other."""


class DataError(UserError):
    """A data set or input folder is missing, damaged, or not what its manifest or sidecar says."""


class CheckpointError(UserError):
    """A checkpoint or model file is missing, damaged, or belongs to another run."""


class SchedulerError(UserError):
    """A scheduler does not answer, or refuses what it is given; its own words are in the message."""


class RunBusyError(UserError):
    """Another attempt of the run is running; the message says which, where and since when."""


class SupersededError(AssayError):
    """A newer attempt of the run has begun, since this one was silent for too long; it must end."""


class PeerLostError(AssayError):
    """An exchange with the other ranks failed, since one of them has ended; the end of that one counts."""

    exit_code = 71


class Unfinished(AssayError):
    """The stage was asked to stop and has saved a checkpoint; the same command goes on from there."""

    exit_code = 75


class NonFiniteError(AssayError):
    """Training produced NaN or Inf; the message names the step and the tensor."""
