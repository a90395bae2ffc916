"""Every error a user can meet, in one tree.

Each message has the shape *what failed: got X, accepted Y. Do Z.* The command line prints it without a traceback
and ends with exit code 2, or 3 for a TrainingFailedError; anything that is not in this tree is a bug.

    MtdistillError
    ├── ConfigError          a setting, preset name or override is unusable
    ├── DataError            text, tokenizer or prepared data is unusable
    │   └── LeakageError     a validation or test sentence is also in training
    ├── MissingExtraError    an optional dependency is needed and not installed
    ├── TeacherError         the teacher is unusable or does not fit the data
    ├── CacheError           stored teacher states are missing, damaged or of something else
    ├── StudentError         a student cannot be built from this teacher
    ├── CheckpointError      a file to resume from or to load is missing, damaged or of another kind
    ├── ExportError          a model cannot be written in another form, or translates worse there
    └── TrainingFailedError  training ran and its result is not usable

Imported everywhere.
"""


class MtdistillError(Exception):
    """Root of all errors that are shown to the user as one plain message."""


class ConfigError(MtdistillError):
    """A setting, preset name or override is unusable."""


class DataError(MtdistillError):
    """Text, tokenizer or prepared data is unusable."""


class LeakageError(DataError):
    """A validation or test sentence also stands in the training split."""


class MissingExtraError(MtdistillError):
    """An optional dependency is needed; the message holds the install command."""


class TeacherError(MtdistillError):
    """The teacher cannot be used, or does not fit the data."""


class CacheError(MtdistillError):
    """Stored teacher states are missing, damaged, or belong to something else."""


class StudentError(MtdistillError):
    """A student of this shape cannot be built from this teacher."""


class CheckpointError(MtdistillError):
    """A model or checkpoint file is missing, damaged or of another kind."""


class ExportError(MtdistillError):
    """A model cannot be written in another form, or does not translate the same there."""


class TrainingFailedError(MtdistillError):
    """Training ran and its result is not usable."""
