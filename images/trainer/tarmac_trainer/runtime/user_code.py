"""Runs a user's Python script as the main program: `python -P user_code.py script.py`.

A file of its own, which imports nothing of the package: the script's process is to be the script's.
Exit code 2 says that the same script on the same input fails again.
"""

import runpy
import sys
import traceback
from types import TracebackType

CODE_ERRORS = (
    ImportError,
    SyntaxError,
    NameError,
    AttributeError,
    TypeError,
    LookupError,
    ValueError,
    ArithmeticError,
    AssertionError,
    EOFError,
    NotImplementedError,
    RecursionError,
)
"""What code raises that is wrong, or has input that it is not made for. Others may be of the machine's."""

EXIT_CODE_ERROR = 2


def main() -> None:
    """Run the script; its own exit code is this process's."""
    sys.argv = sys.argv[1:]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except CODE_ERRORS as error:
        traceback.print_exception(type(error), error, _of_the_script(error.__traceback__, sys.argv[0]))
        if "\n" in str(error):
            print(_told([error]), file=sys.stderr)
        sys.stderr.flush()
        sys.exit(EXIT_CODE_ERROR)
    except Exception as error:
        errors = _single(error)
        if errors == [error] and "\n" not in str(error):
            raise
        traceback.print_exception(type(error), error, _of_the_script(error.__traceback__, sys.argv[0]))
        print(_told(errors), file=sys.stderr, flush=True)
        sys.exit(EXIT_CODE_ERROR if all(isinstance(one, CODE_ERRORS) for one in errors) else 1)


def _told(errors: list[BaseException]) -> str:
    """Errors on one line. Pure.

    The last line that is printed is the one that is told. Of a group it would be a line of dashes, and of an error on
    several lines any part of it.
    """
    return "; ".join(f"{type(one).__name__}: {' '.join(str(one).split())}" for one in errors)


def _single(error: BaseException) -> list[BaseException]:
    """The errors that a group holds, at any depth; of one that is no group itself. Pure."""
    # By its attribute: the package is also loaded by Python 3.10, which has no groups.
    parts = getattr(error, "exceptions", None)
    if not isinstance(parts, tuple):
        return [error]
    return [single for one in parts for single in _single(one)]


def _of_the_script(found: TracebackType | None, script: str) -> TracebackType | None:
    """A traceback from the script's own first line on. Pure."""
    start = found
    while start is not None and start.tb_frame.f_code.co_filename != script:
        start = start.tb_next
    return start


if __name__ == "__main__":
    main()
