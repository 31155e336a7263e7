"""edgeproxy.config.certificates: files that are no certificate or key are mistakes before they are used."""

import ssl
import subprocess
from pathlib import Path

import pytest
import trustme

from edgeproxy.config import ConfigError, load

KEY = {"PROJECT_WRITEKEY": "key-of-hightouch"}


class Files:
    """A configuration with TLS, right to begin with."""

    def __init__(self, folder: Path) -> None:
        self.config = folder / "config.toml"
        self.cert = folder / "cert.pem"
        self.key = folder / "key.pem"
        self.authorities = folder / "ca.pem"
        authority = trustme.CA()
        self.authorities.write_bytes(authority.cert_pem.bytes())
        made = authority.issue_cert("localhost")
        self.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        self.key.write_bytes(made.private_key_pem.bytes())
        self.config.write_text(
            '[server]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n[hightouch]\nca_file = "ca.pem"\n'
        )

    def mistakes(self) -> list[str]:
        with pytest.raises(ConfigError) as raised:
            load(self.config, KEY)
        return [str(mistake) for mistake in raised.value.mistakes]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_what_belongs_together_is_right(files: Files):
    load(files.config, KEY)


def test_a_file_without_a_certificate_is_named(files: Files):
    files.cert.write_text("no certificate")
    (line,) = files.mistakes()
    assert line.startswith(f"{files.config}: [server] tls_cert: {files.cert}: holds no certificate")
    assert "name the file with the server's certificate" in line


def test_a_file_without_a_key_is_named(files: Files):
    files.key.write_text("no key")
    (line,) = files.mistakes()
    assert line.startswith(f"{files.config}: [server] tls_key: {files.key}: holds no private key")


def test_another_certificates_key_is_named(files: Files):
    files.key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    (line,) = files.mistakes()
    assert f"[server] tls_key: {files.key}: is not the key of tls_cert {files.cert}" in line


def test_an_encrypted_key_is_a_mistake_and_asks_nobody(files: Files):
    encrypt = ["openssl", "pkey", "-in", files.key, "-aes256", "-passout", "pass:secret"]
    done = subprocess.run(encrypt, capture_output=True, check=True)
    files.key.write_bytes(done.stdout)
    (line,) = files.mistakes()
    assert "[server] tls_key" in line
    assert "not encrypted" in line


def test_authorities_that_are_none_are_named(files: Files):
    files.authorities.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    (line,) = files.mistakes()
    assert f"[hightouch] ca_file: {files.authorities}: holds no certificate in PEM form" in line


def test_commands_that_do_not_serve_do_not_care(files: Files):
    files.cert.write_text("no certificate")
    load(files.config, KEY, judges=())


def test_a_variable_that_names_the_file_is_named(files: Files):
    files.authorities.write_text("none")
    files.config.write_text("")
    variable = "EDGEPROXY_HIGHTOUCH__CA_FILE"
    with pytest.raises(ConfigError, match=f"^{variable}: "):
        load(files.config, KEY | {variable: str(files.authorities)})
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context(cafile=files.authorities)
