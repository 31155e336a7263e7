"""Which changed settings a running proxy names as needing a restart."""

import pytest

from edgeproxy.config import load
from edgeproxy.reloading import needs_restart

KEY = {"EDGEPROXY_HIGHTOUCH__WRITE_KEY": "k"}


def settings(**environ):
    return load(None, KEY | environ)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("server.host", "127.0.0.1"),
        ("server.port", "1234"),
        ("server.reuse_port", "true"),
        ("admin.port", "1234"),
        ("buffer.path", "elsewhere"),
        ("buffer.max_size", "2GB"),
        ("buffer.durability", "os"),
    ],
)
def test_what_was_opened_once_needs_a_restart(name, value):
    table, key = name.upper().split(".")
    changed = settings(**{f"EDGEPROXY_{table}__{key}": value})
    assert needs_restart(settings(), changed) == [name]


def test_what_is_read_at_each_use_needs_none():
    changed = settings(
        EDGEPROXY_HIGHTOUCH__REGION="eu-west-1",
        EDGEPROXY_FLUSH__MAX_EVENTS="7",
        EDGEPROXY_FLUSH__TIMEOUT="1s",
        EDGEPROXY_RETRY__MAX="7s",
        EDGEPROXY_SERVER__MAX_REQUEST="1MB",
        EDGEPROXY_VALIDATION__MAX_AGE="1d",
    )
    assert needs_restart(settings(), changed) == []
