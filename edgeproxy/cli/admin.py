"""A command's way to the admin listener of a running proxy, found by its configuration."""

import http.client
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

import click
import msgspec

from edgeproxy.cli.options import refuse
from edgeproxy.config import Admin, ConfigError, admin_of_instance, default_path, load_table

__all__ = ["AdminClient", "NotRunningError", "running_proxy"]

#: Seconds; a stream of events says something at least every second.
_TIMEOUT = 10.0
#: Bytes taken at once.
_CHUNK = 1 << 16


class NotRunningError(click.ClickException):
    """Nothing answers where the configuration says that the proxy listens."""


class AdminClient:
    """Asks one proxy; every method connects anew.

    Raises NotRunningError where nothing answers, click.ClickException where the answer is a
    refusal or not one of edgeproxy's. No proxy of the environment is used.
    """

    def __init__(self, admin: Admin, where: str) -> None:
        """`where` names the configuration that the address and the token are from."""
        # What listens on every address can be reached on this machine's own.
        self._host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(
            admin.host, admin.host
        )
        self._port = admin.port
        self._token = admin.token
        self._where = where

    @property
    def address(self) -> str:
        """Host and port."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def get(self, path: str, *, timeout: float = _TIMEOUT, **query: str | None) -> Any:
        """The JSON document at a path."""
        return self._whole("GET", path + _query(query), None, timeout)[1]

    def post(
        self, path: str, document: object = None, *, timeout: float = _TIMEOUT
    ) -> tuple[int, Any]:
        """Ask for something to be done; the status (also 409: it was refused) and the answer."""
        return self._whole("POST", path, document, timeout)

    def lines(
        self,
        method: str,
        path: str,
        document: object = None,
        *,
        timeout: float = _TIMEOUT,
        **query: str | None,
    ) -> Iterator[Any]:
        """The documents of an NDJSON answer, as they come; `timeout` is from one to the next."""
        try:
            connection, answer = self._ask(method, path + _query(query), document, timeout)
            try:
                if answer.status != 200:
                    self._refused(answer.status, answer.read())
                yield from map(self._decode, _lines(answer))
            finally:
                connection.close()
        except http.client.IncompleteRead:
            raise click.ClickException(
                f"The proxy on {self.address} broke off its answer: it has ended, or its log says "
                "why. What was printed is not all."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            self._unanswered(error)

    def _whole(self, method: str, path: str, document: object, timeout: float) -> tuple[int, Any]:
        try:
            connection, answer = self._ask(method, path, document, timeout)
            try:
                body = answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            self._unanswered(error)
        if answer.status not in {200, 409}:
            self._refused(answer.status, body)
        return answer.status, self._decode(body)

    def _ask(
        self, method: str, path: str, document: object, timeout: float
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        body = None
        if document is not None:
            body = msgspec.json.encode(document)
            headers["Content-Type"] = "application/json"
        connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            connection.request(method, path, body, headers)
            return connection, connection.getresponse()
        except BaseException:
            connection.close()
            raise

    def _decode(self, body: bytes) -> Any:
        try:
            return msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self._stranger()

    def _refused(self, status: int, body: bytes) -> NoReturn:
        if status == 401:
            raise click.ClickException(
                f"The proxy on {self.address} does not accept the token: [admin] token of "
                f"{self._where} is not the one that it was started with."
            )
        answer = self._decode(body)
        if not isinstance(answer, dict) or "message" not in answer:
            self._stranger()
        why = str(answer["message"]).rstrip(".")
        raise click.ClickException(f"The proxy on {self.address} refused: {why}.")

    def _stranger(self) -> NoReturn:
        raise click.ClickException(
            f"What answers on {self.address} is not this version of edgeproxy's admin listener; "
            f"see [admin] host and port of {self._where}."
        )

    def _unanswered(self, error: Exception) -> NoReturn:
        if isinstance(error, TimeoutError):
            raise NotRunningError(
                f"The proxy on {self.address} does not answer in time; its log says why."
            ) from None
        if isinstance(error, http.client.HTTPException):
            self._stranger()
        reason = getattr(error, "strerror", None) or str(error)
        raise NotRunningError(
            f"No proxy answers on {self.address} ({reason}), which is [admin] host and port of "
            f"{self._where}. Start it (edgeproxy run, or systemctl start edgeproxy), or name its "
            "configuration with --config and its number with --instance."
        ) from None


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The lines of an answer, as they come. Raises IncompleteRead where it breaks off.

    `readline` would not: it takes the loss of the connection for the end.
    """
    begun: list[bytes] = []
    while part := answer.read1(_CHUNK):
        *whole, rest = part.split(b"\n")
        for line in whole:
            yield b"".join((*begun, line))
            begun.clear()
        begun.append(rest)
    if last := b"".join(begun):
        yield last


def running_proxy(config_path: Path | None, instance: int | None) -> AdminClient:
    """The client for the proxy that runs with a configuration; ends the process where that is wrong.

    Only its `[admin]` table is judged: mistakes elsewhere must not hide the state of a proxy that
    still runs with what was there before.
    """
    path = config_path or default_path()
    where = str(path) if path else "the defaults (there is no configuration file)"
    try:
        admin = load_table(path, os.environ, "admin", Admin)
    except ConfigError as error:
        refuse(error)
    if instance is not None:
        admin = admin_of_instance(admin, instance)
    if admin.port == 0:
        raise click.ClickException(f"[admin] port of {where} is 0: no command can find the proxy.")
    return AdminClient(admin, where)


def _query(given: Mapping[str, str | None]) -> str:
    said = {key: value for key, value in given.items() if value is not None}
    return f"?{urlencode(said)}" if said else ""
