"""edgeproxy.logs: one form for all lines, and no secrets in them."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from edgeproxy import logs
from edgeproxy.config import Log

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)
    logging.getLogger("asyncio").setLevel(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_is_json_unless_on_a_terminal(stream: io.StringIO, lines: Lines):
    logs.setup(Log(), stream)
    structlog.get_logger("edgeproxy.x").info("batch_delivered", lane="web", events=3)
    (line,) = lines()
    assert line["event"] == "batch_delivered"
    assert line["level"] == "info"
    assert line["logger"] == "edgeproxy.x"
    assert line["events"] == 3
    assert line["timestamp"].endswith("Z")


def test_a_line_is_text_on_a_terminal():
    terminal = Terminal()
    logs.setup(Log(), terminal)
    structlog.get_logger("x").info("batch_delivered", lane="web")
    assert "batch_delivered" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_the_form_can_be_chosen(lines: Lines, stream: io.StringIO):
    terminal = Terminal()
    logs.setup(Log(format="json"), terminal)
    structlog.get_logger("x").info("a")
    assert json.loads(terminal.getvalue())["event"] == "a"
    logs.setup(Log(format="text"), stream)
    structlog.get_logger("x").info("b")
    assert "{" not in stream.getvalue()


def test_lines_of_libraries_have_the_same_form(stream: io.StringIO, lines: Lines):
    logs.setup(Log(), stream)
    logging.getLogger("aiohttp.server").error("Error handling %s", "request")
    (line,) = lines()
    assert line["event"] == "Error handling request"
    assert line["level"] == "error"
    assert line["logger"] == "aiohttp.server"


def test_warnings_are_lines_too(stream: io.StringIO, lines: Lines):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logs.setup(Log(), stream)
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(False)
    (line,) = lines()
    assert "old ways" in line["event"]
    assert line["logger"] == "py.warnings"


def test_lines_below_the_level_are_left_out(stream: io.StringIO, lines: Lines):
    logs.setup(Log(level="warning"), stream)
    log = structlog.get_logger("x")
    log.info("a")
    log.warning("b")
    logging.getLogger("y").info("c")
    assert [line["event"] for line in lines()] == ["b"]


def test_a_changed_level_holds_for_loggers_that_exist(stream: io.StringIO, lines: Lines):
    logs.setup(Log(level="error"), stream)
    log = structlog.get_logger("x")
    log.info("a")
    logs.setup(Log(level="debug"), stream)
    log.debug("b")
    assert [line["event"] for line in lines()] == ["b"]


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_shows_no_values_of_variables(form: str, stream: io.StringIO):
    def fail(write_key: str) -> None:
        raise ValueError(f"{len(write_key)} characters")

    logs.setup(Log(format=form), stream)
    secret = "-".join(["s3", "cret"])
    try:
        fail(secret)
    except ValueError:
        structlog.get_logger("x").exception("failed")
        logging.getLogger("y").exception("failed")
    assert stream.getvalue().count("7 characters") == 2
    assert secret not in stream.getvalue()


def test_fields_that_hold_secrets_are_masked(stream: io.StringIO, lines: Lines):
    logs.setup(Log(), stream)
    structlog.get_logger("x").info("a", write_key="s3cret", token="s3cret", body=b"s3cret")
    assert "s3cret" not in stream.getvalue()
    assert lines()[0]["token"] == "…"
