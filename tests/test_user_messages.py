"""What a program tells its user: one line for a mistake, and logs and warnings as their text."""

from __future__ import annotations

import logging
import warnings

import pytest

from crystaljax.user_messages import INTERRUPTED, MISTAKE, plain_messages


def test_logs_are_shown_as_their_text(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """This package's in full, those of other libraries from warnings on; afterwards as before."""
    root, package = logging.getLogger(), logging.getLogger("crystaljax")
    elsewhere = logging.StreamHandler()  # of a library that sets one of its own
    elsewhere.setFormatter(logging.Formatter("LIBRARY %(message)s"))
    root.addHandler(elsewhere)
    before = root.handlers[:], root.level, package.level
    try:
        with plain_messages("program"):
            logging.getLogger("crystaljax.training").info("going on from step %d", 3)
            logging.getLogger("crystaljax.training").debug("of no interest")
            logging.getLogger("other").info("of no interest")
            logging.getLogger("other").warning("disk full")
            warnings.warn("few samples", stacklevel=1)
        assert (root.handlers, root.level, package.level) == before
    finally:
        root.removeHandler(elsewhere)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "going on from step 3\ndisk full\nwarning: few samples\n"
    logging.getLogger("crystaljax").warning("seen again")
    assert "seen again" in caplog.text


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (ValueError("give\n  at least 1"), "program: give at least 1\n", MISTAKE),
        (FileNotFoundError(2, "No such file", "a.csv"), "program: a.csv: No such file\n", MISTAKE),
        (MemoryError(), "program: MemoryError\n", MISTAKE),
        (KeyboardInterrupt(), "program: interrupted\n", INTERRUPTED),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, line: str, status: int
) -> None:
    level = logging.getLogger("crystaljax").level
    with pytest.raises(SystemExit) as ended, plain_messages("program"):
        raise error
    assert ended.value.code == status
    assert capsys.readouterr() == ("", line)
    assert logging.getLogger("crystaljax").level == level
    with pytest.raises(type(error)), plain_messages("program", debug=True):
        raise error


def test_faults_of_the_program_are_not_hidden() -> None:
    with pytest.raises(KeyError), plain_messages("program"):
        raise KeyError("x")
