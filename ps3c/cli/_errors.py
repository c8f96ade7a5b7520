"""Exit codes, and the error message that the terminal shows."""

import errno

OK = 0
REFUSED = 1  # the output exists, the disk is full, a port is in use; any other failure
USAGE = 2
SOME_FAILED = 3  # some images could not be used; OUT.errors.jsonl lists them
MODEL = 4  # the model cannot be used
INTERRUPTED = 130

EXIT_CODES = """\
exit codes:
  0    success
  1    refused or failed: for example the output exists, the disk is full or the port is in use
  2    wrong arguments
  3    some images could not be used; OUT.errors.jsonl lists them
  4    the model cannot be used or downloaded
  130  interrupted; finished results are kept
  129, 143  SIGHUP or SIGTERM arrived; finished results are kept
"""


class CommandError(Exception):
    """Ends a subcommand with a message of one line and an exit code."""

    def __init__(self, message: str, code: int = REFUSED):
        super().__init__(message)
        self.code = code


class UsageError(CommandError):
    """Wrong arguments, or a wrong combination of arguments, found after parsing."""

    def __init__(self, message: str):
        super().__init__(message, USAGE)


def exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, CommandError):
        return error.code
    from ..errors import CheckpointError

    return MODEL if isinstance(error, CheckpointError) else REFUSED


def one_line(error: BaseException) -> str:
    """The error message in one line, without a traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError) and error.errno is not None:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "no space left on the disk"
        elif error.errno == errno.EFBIG:
            reason = "the file would exceed the allowed file size"
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*names[-1:], reason])
    text = " ".join(line.strip() for line in str(error).splitlines() if line.strip())
    if isinstance(error, MemoryError):
        return text or "not enough memory"
    # Errors for users name the argument or the file. Any other type is a bug in ps3c, so the type is shown.
    if isinstance(error, (CommandError, OSError, ValueError, TypeError, RuntimeError, ImportError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
