"""What a user can mend: errors whose message is one line that names the value and the way out.

The commands print them as such and end with status 1; everything else is a traceback.
"""


class UserError(Exception):
    """Something the user can mend."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be had, is not safe, does not fit, or cannot be written."""


class DownloadError(UserError, OSError):
    """A file could not be had; the message names the address."""


class TrainingStopped(UserError, RuntimeError):
    """Training cannot go on."""
