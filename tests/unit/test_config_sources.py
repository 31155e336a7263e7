"""`[[sources]]`, and secrets in files."""

from pathlib import Path

import pytest

from edgeproxy.config import ConfigError, load, load_explained


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def lines(path: Path, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(path, environ or {})
    return [str(mistake) for mistake in raised.value.mistakes]


def test_a_source_takes_what_it_does_not_say_from_hightouch(tmp_path: Path):
    path = write(
        tmp_path,
        """
        [hightouch]
        write_key = "ht"
        region = "eu-west-1"
        [[sources]]
        name = "web"
        write_key = ["one", "two", "one"]
        allowed_origins = ["https://Shop.example.com/", "https://*.example.org", "null"]
        [[sources]]
        name = "app"
        write_key = "three"
        hightouch_write_key = "ht-app"
        endpoint = "http://127.0.0.1:9400/"
        max_size = "200MB"
        """,
    )
    web, app = load(path, {}).sources
    assert web.write_keys == ("one", "two")
    assert web.hightouch_write_key == "ht"
    assert web.endpoint == "https://eu-west-1.hightouch-events.com"
    assert web.allowed_origins == ("https://shop.example.com", "https://*.example.org", "null")
    assert web.max_size is None
    assert app.hightouch_write_key == "ht-app"
    assert app.endpoint == "http://127.0.0.1:9400"
    assert app.max_size == 200_000_000


def test_a_sources_region_makes_its_endpoint(tmp_path: Path):
    text = '[[sources]]\nname = "a"\nwrite_key = "k"\nhightouch_write_key = "h"\n'
    (source,) = load(write(tmp_path, text + 'region = "ap-south-1"'), {}).sources
    assert source.endpoint == "https://ap-south-1.hightouch-events.com"


def test_two_sources_may_not_share_a_name_or_a_key(tmp_path: Path):
    path = write(
        tmp_path,
        """
        [hightouch]
        write_key = "ht"
        [[sources]]
        name = "web"
        write_key = ["one", "k-two"]
        [[sources]]
        name = "web"
        write_key = "k-two"
        """,
    )
    found = lines(path)
    assert len(found) == 2
    assert '[[sources]] 2 (web) name: "web" is [[sources]] 1 (web) too' in found[0]
    assert "[[sources]] 2 (web) write_key: is a write key of [[sources]] 1 (web) too" in found[1]
    assert "k-two" not in found[1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('write_key = "k"', "[[sources]] 1 name: is missing"),
        ('name = "a b"\nwrite_key = "k"', "is not a name of letters"),
        ('name = "a"', "[[sources]] 1 (a) write_key: is missing"),
        ('name = "a"\nwrite_keys = "k"', "write_keys: is not a known key; did you mean write_key?"),
        ('name = "a"\nwrite_key = "k"\nallowed_origins = ["shop.com"]', "is not an origin"),
        ('name = "a"\nwrite_key = "k"\nallowed_origins = ["https://a.com/x"]', "is not an origin"),
        ('name = "a"\nwrite_key = "k"\nmax_size = "x"', "is not a size"),
    ],
)
def test_a_mistake_in_a_source_names_it(tmp_path: Path, text: str, said: str):
    path = write(tmp_path, f'[hightouch]\nwrite_key = "h"\n[[sources]]\n{text}')
    assert any(said in line for line in lines(path))


def test_a_secret_file_beside_the_configuration_is_read(tmp_path: Path):
    (tmp_path / "key").write_text("from-a-file\n")
    path = write(tmp_path, '[hightouch]\nwrite_key_file = "key"')
    loaded = load_explained(path, {})
    assert loaded.settings.hightouch.write_key == "from-a-file"
    assert "write_key_file" in loaded.origins["hightouch.write_key"]


def test_a_credential_of_systemd_comes_before_the_file_of_that_name(tmp_path: Path):
    (tmp_path / "key").write_text("beside")
    (tmp_path / "other").write_text("0ther")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "key").write_text("credential\n")
    path = write(tmp_path, '[hightouch]\nwrite_key_file = "key"\n[admin]\ntoken_file = "other"\n')
    settings = load(path, {"CREDENTIALS_DIRECTORY": str(tmp_path / "run")})
    assert settings.hightouch.write_key == "credential"
    assert settings.admin.token == "0ther"


def test_the_environment_may_name_a_secret_file(tmp_path: Path):
    (tmp_path / "token").write_text("t")
    path = write(tmp_path, '[admin]\ntoken = "in-file"\n[hightouch]\nwrite_key = "k"')
    environ = {"EDGEPROXY_ADMIN__TOKEN_FILE": str(tmp_path / "token")}
    assert load(path, environ).admin.token == "t"


def test_a_file_of_several_write_keys_has_one_on_each_line(tmp_path: Path):
    (tmp_path / "keys").write_text("new-key\nold-key\n")
    text = '[hightouch]\nwrite_key = "h"\n[[sources]]\nname = "a"\nwrite_key_file = "keys"'
    assert load(write(tmp_path, text), {}).sources[0].write_keys == ("new-key", "old-key")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "No such file"), (b"\n", "is empty"), (b"\xff", "is not text"), (b"a b", "visible")],
)
def test_a_secret_file_that_does_not_serve_is_one_mistake(
    tmp_path: Path, content: bytes | None, said: str
):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    (line,) = lines(write(tmp_path, '[hightouch]\nwrite_key_file = "key"'))
    assert "[hightouch] write_key_file: " in line
    assert said in line


def test_a_secret_given_twice_is_a_mistake(tmp_path: Path):
    (tmp_path / "key").write_text("k")
    path = write(tmp_path, '[hightouch]\nwrite_key = "k"\nwrite_key_file = "key"')
    (line,) = lines(path)
    assert "write_key: write_key_file says it too; keep one of them" in line
    environ = {
        "EDGEPROXY_HIGHTOUCH__WRITE_KEY": "a",
        "EDGEPROXY_HIGHTOUCH__WRITE_KEY_FILE": "key",
    }
    (line,) = lines(write(tmp_path, ""), environ)
    assert "EDGEPROXY_HIGHTOUCH__WRITE_KEY_FILE says it too" in line


def test_a_certificate_needs_its_key(tmp_path: Path):
    (tmp_path / "cert.pem").write_text("x")
    path = write(tmp_path, '[server]\ntls_cert = "cert.pem"\n[hightouch]\nwrite_key = "k"')
    (line,) = lines(path)
    assert "[server] tls_key: is missing, and tls_cert is set" in line


def test_a_token_lets_the_admin_listener_leave_the_machine(tmp_path: Path):
    path = write(tmp_path, '[hightouch]\nwrite_key = "k"\n[admin]\nhost = "::"\ntoken = "t"')
    assert load(path, {}).admin.host == "::"


def test_a_command_that_does_not_serve_needs_no_file_that_settings_name(tmp_path: Path):
    text = """
        [hightouch]
        write_key_file = "absent"
        ca_file = "absent"
        [admin]
        token_file = "absent"
        [[sources]]
        name = "web"
        write_key_file = "absent"
        """
    path = write(tmp_path, text)
    assert len(lines(path)) == 4
    settings = load(path, {}, judges=())
    assert [mistake.key for mistake in settings.unreadable] == [
        "write_key_file",
        "ca_file",
        "write_key_file",
        "token_file",
    ]
    assert settings.admin.token == ""
    assert settings.sources[0].write_keys == ()


def test_a_share_above_the_whole_buffer_is_a_mistake(tmp_path: Path):
    text = (
        '[hightouch]\nwrite_key = "h"\n[[sources]]\nname = "a"\nwrite_key = "k"\nmax_size = "{}"\n'
    )
    (line,) = lines(write(tmp_path, text.format("2GiB")))
    assert "[[sources]] 1 (a) max_size: 2147483648 bytes are more than all of the buffer" in line
    assert "raise [buffer] max_size" in line
    load(write(tmp_path, text.format("1GiB")), {})
