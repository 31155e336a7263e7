"""edgeproxy.cli: the command's skeleton, `check`, and exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

KEY = "abcdefghijklmnop"


def edgeproxy(*arguments: str, cwd: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("EDGEPROXY_", "PROJECT_", "WORKSPACE_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "edgeproxy", *arguments],
        cwd=cwd,
        env=inherited | environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_the_help_lists_commands_without_loading_them(tmp_path: Path):
    script = (
        "import sys; from edgeproxy.cli import main; main(['--help'], standalone_mode=False); "
        "print([m for m in ('aiohttp', 'apsw', 'edgeproxy.cli.check') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "  check " in done.stdout
    assert "  run " in done.stdout
    assert done.stdout.endswith("[]\n")


def test_an_unknown_command_is_wrong_usage(tmp_path: Path):
    done = edgeproxy("chek", cwd=tmp_path)
    assert done.returncode == 2
    assert "No such command 'chek'" in done.stderr


def test_every_listed_command_has_a_help(tmp_path: Path):
    from click.testing import CliRunner

    from edgeproxy.cli import main

    listed = main.list_commands(None)  # type: ignore[arg-type]
    assert {"run", "check"} <= set(listed)
    for name in listed:
        result = CliRunner().invoke(main, [name, "--help"])
        assert result.exit_code == 0, name
        assert "Usage:" in result.output


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_wrong_configuration_exits_with_78_and_a_line_for_each_mistake(
    tmp_path: Path, command: str
):
    (tmp_path / "config.toml").write_text('[flush]\nmax_events = 0\n[log]\nlevel = "loud"\n')
    done = edgeproxy(command, cwd=tmp_path)
    assert done.returncode == 78
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert "config.toml: [flush] max_events: 0 is not between" in lines[0]
    assert "[log] level" in lines[1]
    assert "[hightouch] write_key: is missing" in lines[2]


def test_check_prints_what_is_in_effect_and_where_it_came_from(tmp_path: Path):
    (tmp_path / "config.toml").write_text(
        f'[flush]\ninterval = "2s"\n[admin]\ntoken = "{KEY}"\n'
        '[hightouch]\nproxy = "http://me:pass@p:1"\n'
    )
    done = edgeproxy("check", cwd=tmp_path, PROJECT_WRITEKEY=KEY, EDGEPROXY_RETRY__MAX="30s")
    assert done.returncode == 0, done.stderr
    shown = {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert 'interval = "2s" # config.toml' in shown
    assert 'max = "30s" # EDGEPROXY_RETRY__MAX' in shown
    assert 'initial = "500ms" # default' in shown
    assert 'token = "abcd…" # config.toml' in shown
    assert 'proxy = "http://…@p:1" # config.toml' in shown
    assert KEY[:5] not in done.stdout


def test_check_reports_as_json(tmp_path: Path):
    done = edgeproxy("check", "--json", cwd=tmp_path, PROJECT_WRITEKEY=KEY)
    report = json.loads(done.stdout)
    assert done.returncode == 0
    assert report["ok"]
    line = {"table": "[retry]", "key": "max", "value": '"1m"', "origin": "default"}
    assert line in report["settings"]
    assert KEY[:5] not in done.stdout
    done = edgeproxy("check", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert done.returncode == 78
    assert not report["ok"]
    assert report["mistakes"][0]["key"] == "write_key"


def test_check_shows_an_instance_as_it_would_run(tmp_path: Path):
    done = edgeproxy("check", "--instance", "2", cwd=tmp_path, PROJECT_WRITEKEY=KEY)
    shown = {" ".join(line.split()) for line in done.stdout.splitlines()}
    assert 'path = "data/2" # --instance 2' in shown
    assert "reuse_port = true # --instance 2" in shown
    assert "port = 8082 # --instance 2" in shown


def test_short_secrets_are_not_shown_at_all():
    from edgeproxy.cli.effective import mask

    assert mask("") == ""
    assert mask("abcd") == "…"
    assert mask("abcdefghijkl") == "abcd…"


def test_a_configuration_that_is_named_must_exist(tmp_path: Path):
    done = edgeproxy("check", "--config", "absent.toml", cwd=tmp_path, PROJECT_WRITEKEY=KEY)
    assert done.returncode == 78
    assert "absent.toml: cannot be read (No such file or directory)" in done.stderr


def test_a_garbage_certificate_is_a_wrong_configuration_for_check_and_run(tmp_path: Path):
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("garbage")
    text = (
        f'[hightouch]\nwrite_key = "{KEY}"\n[server]\ntls_cert = "cert.pem"\ntls_key = "key.pem"\n'
    )
    (tmp_path / "config.toml").write_text(text)
    for command in ("check", "run"):
        done = edgeproxy(command, cwd=tmp_path)
        assert done.returncode == 78
        assert done.stderr.count("\n") == 1
        assert "config.toml: [server] tls_cert: cert.pem: holds no certificate" in done.stderr
