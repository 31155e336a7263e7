"""The units under a real systemd: every command of docs/install.md, then what can go wrong.

One host, one story: each test goes on where the one before ended. `make boot` runs it.
"""

from __future__ import annotations

import json
import shlex
import threading

import pytest

from tests.boot.conftest import documented
from tests.boot.host import Host

pytestmark = [pytest.mark.torture, pytest.mark.timeout(400)]

CONFIG = "/etc/edgeproxy/config.toml"
PORTS = "ss -Hltn '( sport = 8080 or sport = 8081 )'"


def load(host: Host, seconds: float, timeout: float = 3) -> dict[str, int]:
    """What clients were answered, and how often."""
    return json.loads(host.sh(f"python3 inside.py load {seconds} {timeout}"))


def all_arrive(host: Host) -> None:
    host.wait(lambda: host.sh("python3 inside.py missing") == "0\n", 20)


def faults(host: Host, setting: str) -> None:
    host.sh(f"python3 inside.py faults {shlex.quote(setting)}")


def state(host: Host, unit: str = "edgeproxy") -> tuple[str, str]:
    return host.show(unit, "ActiveState"), host.show(unit, "ExecMainStatus")


def test_the_documented_steps_start_it(host: Host):
    start = documented("edgeproxy check --probe").removeprefix("edgeproxy check --probe\n")
    assert "cannot be resolved" in host.sh("edgeproxy check --probe", code=1)
    host.sh(start)
    assert state(host) == ("active", "0")
    assert host.show("edgeproxy", "User") == "edgeproxy"
    assert "edgeproxy edgeproxy 700" in host.sh("stat -c '%U %G %a' /var/lib/edgeproxy")


def test_a_changed_configuration_is_applied_and_names_and_authorities_are_those_of_the_host(
    host: Host,
):
    host.sh("echo nameserver 127.0.0.1 > /etc/resolv.conf")
    host.sh("systemd-run --quiet --unit=upstream python3 /root/inside.py upstream")
    host.sh(f"""sed -i 's|^region.*|endpoint = "https://hightouch.test:9443"|' {CONFIG}""")
    host.wait(lambda: "answered 200" in host.sh("edgeproxy check --probe || true"))
    host.sh(documented("edgeproxy check && systemctl reload"))
    assert set(load(host, 0.5)) == {"HTTP/1.1 200 OK"}
    all_arrive(host)


def test_it_is_ready_only_once_the_buffer_is_open(host: Host):
    host.sh("systemctl stop edgeproxy")
    started = host.sh(
        "flock /var/lib/edgeproxy/lock sleep 3 & sleep 0.2\n"
        "systemctl start --no-block edgeproxy; sleep 1.5\n"
        f"systemctl is-active edgeproxy; {PORTS}; systemctl start edgeproxy; {PORTS}"
    )
    assert started.splitlines()[0] == "activating"
    assert len(started.splitlines()) == 3, "nothing listens before, both ports do after"


def test_killed_it_is_started_again_and_delivers(host: Host):
    faults(host, '{"status": 503}')
    assert set(load(host, 0.5)) == {"HTTP/1.1 200 OK"}
    host.sh("kill -9 $(systemctl show --value -p MainPID edgeproxy)")
    faults(host, "{}")
    host.wait(lambda: host.show("edgeproxy", "NRestarts") == "1")
    all_arrive(host)


def test_stopped_it_sends_what_it_has(host: Host):
    load(host, 0.3)
    host.sh("systemctl stop edgeproxy")
    assert state(host) == ("inactive", "0")
    assert host.sh("python3 inside.py missing") == "0\n"
    host.sh("systemctl start edgeproxy")


def test_a_wrong_configuration_is_refused_and_not_tried_again(host: Host):
    host.sh(f"cp {CONFIG} good.toml; echo 'nonsense = 1' >> {CONFIG}")
    host.sh("systemctl reload edgeproxy", code=1)
    assert "[buffer] nonsense" in host.sh("journalctl -u edgeproxy -n 5 -o cat")
    assert set(load(host, 0.3)) == {"HTTP/1.1 200 OK"}
    host.sh("systemctl restart edgeproxy || sleep 2.5")
    assert state(host) == ("failed", "78")
    assert host.show("edgeproxy", "NRestarts") == "0"
    host.sh(f"cp good.toml {CONFIG}; systemctl start edgeproxy")


def test_a_credential_that_is_not_there_is_named(host: Host):
    host.sh("mv /etc/edgeproxy/write_key away; systemctl restart edgeproxy || true")
    assert "status=243/CREDENTIALS" in host.sh("systemctl status edgeproxy", code=3)
    host.sh("mv away /etc/edgeproxy/write_key; systemctl restart edgeproxy")


def test_a_process_that_hangs_is_replaced(host: Host):
    host.sh(
        "mkdir /etc/systemd/system/edgeproxy.service.d\n"
        "printf '[Service]\\nWatchdogSec=3\\n' > /etc/systemd/system/edgeproxy.service.d/short.conf\n"
        "systemctl daemon-reload; systemctl restart edgeproxy; sleep 5\n"
    )
    assert host.show("edgeproxy", "NRestarts") == "0", "it was fed"
    host.sh("kill -STOP $(systemctl show --value -p MainPID edgeproxy)")
    host.wait(lambda: host.show("edgeproxy", "NRestarts") == "1")
    host.wait(lambda: state(host) == ("active", "0"))
    host.sh("systemctl revert edgeproxy; systemctl restart edgeproxy")


def test_it_is_upgraded_as_documented(host: Host):
    before = host.show("edgeproxy", "MainPID")
    host.sh(documented("/opt/edgeproxy/bin/pip install --upgrade"), outside_network=True)
    assert state(host) == ("active", "0")
    assert host.show("edgeproxy", "MainPID") != before


def test_with_the_socket_a_restart_refuses_nobody(host: Host):
    host.sh(documented("systemctl disable --now edgeproxy\n"))
    answers: list[dict[str, int]] = []
    clients = threading.Thread(target=lambda: answers.append(load(host, 8)))
    clients.start()
    for _ in range(4):
        host.sh("sleep 1; systemctl restart edgeproxy")
    clients.join()
    assert set(answers[0]) == {"HTTP/1.1 200 OK"}
    all_arrive(host)


def test_the_socket_is_moved_as_documented(host: Host):
    host.sh(
        "mkdir /etc/systemd/system/edgeproxy.socket.d\n"
        "cat > /etc/systemd/system/edgeproxy.socket.d/override.conf <<'END'\n"
        f"{documented('[Socket]', 'ini')}END\n"
        "systemctl daemon-reload; systemctl restart edgeproxy.socket"
    )
    host.wait(lambda: state(host) == ("active", "0"))
    assert host.sh("ss -Hltn '( sport = 80 )'")
    assert "8080" not in host.sh(PORTS)
    host.sh("systemctl revert edgeproxy.socket; systemctl restart edgeproxy.socket")
    assert set(load(host, 0.3)) == {"HTTP/1.1 200 OK"}


def test_a_socket_that_gave_up_comes_back_with_the_service(host: Host):
    host.sh(f"echo 'nonsense = 1' >> {CONFIG}; systemctl restart edgeproxy || true")
    load(host, 4)
    assert host.show("edgeproxy.socket", "Result") == "trigger-limit-hit"
    host.sh(f"cp good.toml {CONFIG}; systemctl start edgeproxy")
    assert state(host, "edgeproxy.socket")[0] == "active"
    assert set(load(host, 0.3)) == {"HTTP/1.1 200 OK"}


def test_several_share_the_port_and_take_over_what_one_left(host: Host):
    faults(host, '{"status": 503}')
    load(host, 0.5)
    host.sh(documented("systemctl disable --now edgeproxy.socket edgeproxy\ninstall"))
    faults(host, "{}")
    all_arrive(host)
    load(host, 2)
    host.sh("systemctl reload edgeproxy@1 edgeproxy@2; systemctl kill -s KILL edgeproxy@2")
    host.wait(lambda: host.show("edgeproxy@2", "NRestarts") == "1")
    host.wait(lambda: state(host, "edgeproxy@2") == ("active", "0"))
    for instance in (1, 2):
        status = json.loads(host.sh(f"edgeproxy status --json --instance {instance}"))
        assert status["lanes"][0]["state"] == "ok"
        assert (status["totals"]["accepted"] > 0) == (instance == 1), "the other is new"
    all_arrive(host)


def test_an_instance_whose_name_is_no_number_is_not_tried_again(host: Host):
    host.sh("systemctl start edgeproxy@blue", code=1)
    host.sh("sleep 2")
    assert state(host, "edgeproxy@blue") == ("failed", "2")
    host.sh("systemctl reset-failed edgeproxy@blue")


def test_an_instance_can_be_cut_off_and_taken_away(host: Host):
    override = documented("[Service]\nEnvironment=", "ini")
    host.sh(
        "mkdir /etc/systemd/system/edgeproxy@2.service.d\n"
        "cat > /etc/systemd/system/edgeproxy@2.service.d/override.conf <<'END'\n"
        f"{override}END\n"
        "systemctl daemon-reload; systemctl restart edgeproxy@2"
    )
    assert len(host.sh(PORTS).splitlines()) == 2, "of the first alone"
    assert "Buffer         0 events" in host.sh("edgeproxy status --instance 2")
    host.sh("systemctl disable --now edgeproxy@2; systemctl revert edgeproxy@2")
    assert set(load(host, 0.3)) == {"HTTP/1.1 200 OK"}


def test_the_files_can_be_looked_after(host: Host):
    host.sh("systemctl stop edgeproxy@1")
    by_itself = documented("cd / && runuser").strip() + " --instance 1"
    assert "/var/lib/edgeproxy/1: 0 events" in host.sh(by_itself)
    host.sh("edgeproxy buffer check --instance 1; edgeproxy buffer repair --yes --instance 1")
    assert host.sh("find /var/lib/edgeproxy ! -user edgeproxy") == ""


def test_it_is_removed_without_a_trace(host: Host):
    host.sh("systemctl start edgeproxy@1")
    host.sh(documented("systemctl disable --now edgeproxy.socket edgeproxy\nsystemctl stop"))
    assert host.sh("find /etc/systemd /opt -name '*edgeproxy*'") == ""
    assert host.sh("systemctl list-units --all --plain --no-legend 'edgeproxy*'") == ""
