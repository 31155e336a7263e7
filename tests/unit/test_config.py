"""edgeproxy.config: reading, resolving and judging settings."""

import os
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from edgeproxy.config import (
    ConfigError,
    Mistake,
    Settings,
    default_path,
    for_instance,
    load,
    load_explained,
    nearest,
)

KEY = {"PROJECT_WRITEKEY": "key-of-hightouch"}
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


def mistakes(path: Path | None, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(path, environ or {})
    assert all("\n" not in str(mistake) for mistake in raised.value.mistakes)
    return [str(mistake) for mistake in raised.value.mistakes]


def only(path: Path | None, environ: dict[str, str] | None = None) -> str:
    (line,) = mistakes(path, KEY if environ is None else environ)
    return line


def test_without_a_file_the_key_of_the_environment_is_enough():
    settings = load(None, KEY)
    (source,) = settings.sources
    assert source.name == "default"
    assert source.write_keys == ("key-of-hightouch",)
    assert source.hightouch_write_key == "key-of-hightouch"
    assert source.endpoint == "https://us-east-1.hightouch-events.com"
    assert settings.path is None


def test_the_region_of_the_environment_makes_the_endpoint():
    settings = load(None, KEY | {"WORKSPACE_REGION": "eu-west-1"})
    assert settings.hightouch.region == "eu-west-1"
    assert settings.sources[0].endpoint == "https://eu-west-1.hightouch-events.com"


def test_a_missing_key_names_every_way_to_give_it():
    line = only(None, {})
    for remedy in (
        "[hightouch] write_key",
        "PROJECT_WRITEKEY",
        "EDGEPROXY_HIGHTOUCH__WRITE_KEY",
        "write_key_file",
        "credential",
    ):
        assert remedy in line


def test_commands_that_do_not_serve_need_no_key():
    assert load(None, {}, judges=()).sources[0].write_keys == ()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [('"250ms"', 0.25), ('"5s"', 5), ('"10m"', 600), ("2", 2), ("0.5", 0.5), ('"1.5m"', 90)],
)
def test_durations_are_read_as_seconds(write: Write, written: str, seconds: float):
    assert load(write(f"[flush]\ninterval = {written}"), KEY).flush.interval == seconds


@pytest.mark.parametrize(
    ("written", "size"),
    [('"96KB"', 96_000), ('"2MiB"', 2 * 2**20), ("5000000", 5_000_000), ('"1 GB"', 10**9)],
)
def test_sizes_are_read_as_bytes(write: Write, written: str, size: int):
    assert load(write(f"[dead_letters]\nmax_size = {written}"), KEY).dead_letters.max_size == size


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[flush]\ninterval = "5 parsecs"', '[flush] interval: "5 parsecs" is not a duration'),
        ("[flush]\ninterval = true", "is not a duration"),
        ("[flush]\ninterval = inf", "is not a duration"),
        ('[flush]\ninterval = "2d"', '"2d" is not between "0s" and "1h"'),
        ("[flush]\nmax_events = 0", "0 is not between 1 and 100000"),
        ("[flush]\nmax_events = 1.5", "1.5 is not a whole number"),
        ('[flush]\ncompression = "br"', '"br" is not "gzip" or "none"'),
        ('[flush]\nintervall = "1s"', "intervall: is not a known key; did you mean interval?"),
        ('[buffer]\nmax_size = "1XB"', "is not a size such as"),
        ('[buffer]\npath = ""', "[buffer] path: is empty"),
        ('[bufer]\npath = "x"', "[bufer]: is not a known table; did you mean buffer?"),
        ("stray = 1", "[stray]: has no table"),
        ("flush = 1", "[flush]: is not a table"),
        ("sources = 1", "[[sources]]: is not a list of tables"),
        ('[server]\nreuse_port = "yes"', '"yes" is not true or false'),
        ("[server]\nhost = 1", "1 is not a text"),
        ('[server]\ntrusted_proxies = ["10.0.0.1/8"]', "host bits set"),
        ('[server]\ntrusted_proxies = "10.0.0.1"', "is not a list"),
        ('[server]\nmax_request = "10"', "is not between"),
        ('[hightouch]\nregion = "mars"', '"mars" is not a region such as "us-east-1"'),
        ('[hightouch]\nendpoint = "us-east-1"', "does not begin with a scheme and a host"),
        ('[hightouch]\nendpoint = "https://h/v1/batch/"', "ends in /v1/batch, which is added"),
        ('[hightouch]\nendpoint = "https://h/a?b"', "has more than a scheme, a host and a path"),
        ('[hightouch]\nproxy = "http://h/a"', "has more than a scheme and a host"),
        ('[server]\nhost = "not a host"', '[server] host: "not a host" is not a host such as'),
        ('[server]\nhost = "127.0.0.256"', "is not a host such as"),
        ('[admin]\nhost = "[::1]"', "is not a host such as"),
        ('[hightouch]\nendpoint = "https://h:x"', "is not a URL"),
        ('[hightouch]\nproxy = "socks5://h"', "does not begin with a scheme and a host"),
        ('[hightouch]\nwrite_key = "two words"', "[hightouch] write_key: is not a text of visible"),
        ("[hightouch]\nwrite_key = 1", "[hightouch] write_key: is not a text of visible"),
        ('[hightouch]\nca_file = "absent.pem"', "absent.pem: No such file or directory"),
        ('[retry]\ninitial = "2m"', "[retry] initial: is more than max"),
        ('[flush]\nmax_bytes = "50KB"', "cannot hold the largest event"),
        ("[admin]\nport = 8080", "[admin] port: 8080 is [server] port too"),
        ('[admin]\nhost = "0.0.0.0"', "[admin] token: is missing"),
    ],
)
def test_each_mistake_is_one_line_that_says_where_and_what(write: Write, text: str, said: str):
    path = write(text)
    line = only(path)
    assert line.startswith(f"{path}: ")
    assert said in line


def test_all_mistakes_are_found_at_once(write: Write):
    path = write(
        """
        [flush]
        max_events = 0
        intervall = 1
        [log]
        level = "loud"
        [[sources]]
        name = "a"
        [bufer]
        """
    )
    lines = mistakes(path, {"EDGEPROXY_RETRY__MAX": "soon", "EDGEPROXY_RETRY__MOX": "1"})
    assert len(lines) == 8
    for part in ("[bufer]", "max_events", "intervall", "level", "RETRY__MAX", "RETRY__MOX"):
        assert sum(part in line for line in lines) >= 1, part
    assert any("[[sources]] 1 (a) write_key: is missing" in line for line in lines)
    assert any("[[sources]] 1 (a) hightouch_write_key: is missing" in line for line in lines)


def test_broken_toml_names_line_and_column(write: Write):
    line = only(write("[flush]\ninterval = 5s"))
    assert "is not TOML" in line
    assert "line 2" in line


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path):
    absent = only(tmp_path / "absent.toml")
    assert "No such file" in absent
    assert "name a file that the user of this process can read with --config" in absent
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    assert "is not UTF-8 at byte 5" in only(tmp_path / "latin.toml")


def test_the_environment_wins_over_the_file(write: Write):
    path = write('[flush]\ninterval = "2s"\nmax_events = 7\n[hightouch]\nwrite_key = "in-file"')
    environ = {"EDGEPROXY_FLUSH__INTERVAL": "3s", "PROJECT_WRITEKEY": "not-asked"}
    loaded = load_explained(path, environ)
    assert loaded.settings.flush.interval == 3
    assert loaded.settings.flush.max_events == 7
    assert loaded.settings.hightouch.write_key == "in-file"
    assert loaded.origins["flush.interval"] == "EDGEPROXY_FLUSH__INTERVAL"
    assert loaded.origins["flush.max_events"] == str(path)
    assert loaded.origins["flush.max_bytes"] == "default"


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("FLUSH__MAX_EVENTS", "10", lambda settings: settings.flush.max_events == 10),
        ("FLUSH__INTERVAL", "2", lambda settings: settings.flush.interval == 2),
        ("BUFFER__MAX_SIZE", "5000000", lambda settings: settings.buffer.max_size == 5_000_000),
        ("BUFFER__PATH", "/x", lambda settings: settings.buffer.path == Path("/x")),
        ("SERVER__REUSE_PORT", "true", lambda settings: settings.server.reuse_port),
        ("DEAD_LETTERS__MAX_AGE", "1d", lambda settings: settings.dead_letters.max_age == 86400),
        ("MAPPING__FILE", "m.toml", lambda settings: settings.mapping == {"file": "m.toml"}),
        (
            "SERVER__TRUSTED_PROXIES",
            "10.0.0.0/8, ::1",
            lambda s: s.server.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1")),
        ),
        ("FLUSH__TIMEOUT", "", lambda settings: settings.flush.timeout == 30),
    ],
)
def test_every_scalar_can_come_from_the_environment(
    variable: str, text: str, value: Callable[[Settings], bool]
):
    assert value(load(None, KEY | {f"EDGEPROXY_{variable}": text}))


@pytest.mark.parametrize(
    ("variable", "text", "said"),
    [
        ("EDGEPROXY_FLUSH__INTERVA", "1", "did you mean EDGEPROXY_FLUSH__INTERVAL?"),
        ("EDGEPROXY_PORT", "1", "EDGEPROXY_TABLE__KEY"),
        ("EDGEPROXY_FLUSH__MAX_EVENTS", "many", "[flush] max_events"),
        ("EDGEPROXY_SERVER__REUSE_PORT", "maybe", "is not true or false"),
        ("WORKSPACE_REGION", "the moon", "[hightouch] region"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(variable: str, text: str, said: str):
    line = only(None, KEY | {variable: text})
    assert line.startswith(f"{variable}: ")
    assert said in line


def test_an_empty_key_in_the_file_leaves_room_for_the_environment(write: Write):
    settings = load(write('[hightouch]\nwrite_key = ""'), KEY)
    assert settings.hightouch.write_key == "key-of-hightouch"


def test_settings_print_without_secrets(write: Write):
    path = write('[admin]\ntoken = "t0ken"\n[hightouch]\nproxy = "http://me:pass@proxy:1"')
    shown = repr(load(path, KEY))
    assert "interval=1.0" in shown
    for secret in ("t0ken", "pass", "key-of-hightouch"):
        assert secret not in shown


def test_mistakes_never_hold_a_secret(write: Write):
    path = write(
        """
        [hightouch]
        write_key = "sec ret"
        proxy = "ftp://me:sec-ret@host"
        endpoint = "https://me:sec-ret@host"
        [admin]
        token = ["sec-ret"]
        """
    )
    lines = mistakes(path)
    assert len(lines) == 4
    assert not any("sec ret" in line or "sec-ret" in line for line in lines)


def test_the_default_file_is_the_one_of_the_working_directory(
    write: Write, monkeypatch: pytest.MonkeyPatch
):
    path = write("")
    monkeypatch.chdir(path.parent)
    assert default_path() == Path("config.toml")


@pytest.fixture
def nobody() -> Iterator[Callable[[], None]]:
    """Become a user who may do little, until the test ends."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    yield lambda: os.seteuid(65534)
    os.seteuid(0)


def test_where_the_default_file_may_not_be_looked_for_it_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nobody: Callable[[], None]
):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o700)
    nobody()
    path = default_path()
    assert path == Path("config.toml")
    assert "config.toml: cannot be read (Permission denied)" in only(path)


def test_credentials_that_may_not_be_looked_at_are_a_mistake(
    tmp_path: Path, nobody: Callable[[], None]
):
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    nobody()
    environ = {"CREDENTIALS_DIRECTORY": str(folder), "EDGEPROXY_HIGHTOUCH__WRITE_KEY_FILE": "key"}
    line = only(None, environ)
    assert "[hightouch] write_key_file: " in line
    assert f"{folder}/key: Permission denied" in line


@pytest.mark.parametrize(
    ("endpoint", "wanted"),
    [
        ("https://h/edge/", "https://h/edge"),
        ("http://h:1", "http://h:1"),
        ("https://h//", "https://h"),
    ],
)
def test_an_endpoint_may_have_a_path(write: Write, endpoint: str, wanted: str):
    (source,) = load(write(f'[hightouch]\nendpoint = "{endpoint}"'), KEY).sources
    assert source.endpoint == wanted


@pytest.mark.parametrize("host", ["", "::", "fe80::1%lo", "localhost", "edge-1.example.com"])
def test_a_host_is_an_address_or_a_name(write: Write, host: str):
    assert load(write(f'[server]\nhost = "{host}"'), KEY).server.host == host


def test_instances_differ_in_folder_and_admin_port():
    third = for_instance(load(None, KEY), 3)
    assert third.buffer.path == Path("data/3")
    assert third.server.reuse_port
    assert third.admin.port == 8083


def test_judges_are_asked_and_their_mistakes_reported_with_the_others(write: Write):
    path = write('[mapping]\nrevision = "1"\n[flush]\nmax_events = 0')
    asked = []

    def judge(settings: Settings) -> list[Mistake]:
        asked.append(settings.mapping)
        return [Mistake(str(settings.path), "[mapping]", "revision", "is odd")]

    with pytest.raises(ConfigError) as raised:
        load(path, KEY, judges=(judge,))
    assert asked == [{"revision": "1"}]
    assert [mistake.table for mistake in raised.value.mistakes] == ["[flush]", "[mapping]"]


def test_a_name_like_no_other_lists_what_there_is():
    assert nearest("zzz", ["one", "two"]) == "known here: one, two"
