"""The dashboard, the alert rules and the runbook speak of metrics that there are."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edgeproxy import service
from edgeproxy.config import load

ROOT = Path(__file__).parents[2]
RULES = yaml.safe_load((ROOT / "ops/prometheus-alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "ops/grafana-dashboard.json").read_text())
NAME = re.compile(r"\bedgeproxy_[a-z_]+")


@pytest.fixture
async def exposed(tmp_path):
    """The names of all samples of a service, and labels of each family."""
    settings = load(
        None,
        {
            "EDGEPROXY_HIGHTOUCH__WRITE_KEY": "key",
            "EDGEPROXY_SERVER__PORT": "0",
            "EDGEPROXY_SERVER__HOST": "127.0.0.1",
            "EDGEPROXY_ADMIN__PORT": "0",
            "EDGEPROXY_BUFFER__PATH": str(tmp_path / "data"),
        },
    )
    async with service.start(settings, lambda: settings) as (proxy, _):
        metrics = proxy.metrics
        metrics.received("site", "track")
        metrics.accepted("site", 1)
        metrics.quarantined("site", "missing_event")
        metrics.duplicates("site", 1)
        metrics.filtered("site", "rule")
        metrics.delivered("site", 1)
        metrics.expired("site", 1)
        metrics.attempted("site", "delivered")
        metrics.refused("unknown_key")
        metrics.skewed("site", 1, 86_400.0)
        text = generate_latest(metrics.registry).decode()
    # The official client's own parser: raises on anything that is no exposition format.
    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_contracts_metrics_are_exposed_with_their_labels(exposed):
    wanted = {
        "events_received_total": {"source", "type"},
        "events_accepted_total": {"source"},
        "events_quarantined_total": {"source", "code"},
        "events_duplicate_total": {"source"},
        "events_filtered_total": {"source", "rule"},
        "events_delivered_total": {"lane"},
        "events_expired_total": {"source"},
        "delivery_attempts_total": {"lane", "outcome"},
        "buffer_events": set(),
        "buffer_bytes": set(),
        "buffer_oldest_age_seconds": set(),
        "dead_letters": set(),
        "commit_seconds_bucket": {"le"},
        "request_seconds_bucket": {"le"},
        "delivery_seconds_bucket": {"le"},
        "delivery_lag_seconds_bucket": {"le"},
    }
    for name, labels in wanted.items():
        assert exposed[f"edgeproxy_{name}"] == labels


async def test_every_rule_and_panel_asks_for_metrics_that_there_are(exposed):
    asked = [rule["expr"] for rule in RULES]
    for panel in DASHBOARD["panels"]:
        asked += [target["expr"] for target in panel.get("targets", [])]
    names = {name for expression in asked for name in NAME.findall(expression)}
    assert names
    assert names <= exposed.keys()


def test_every_alert_has_a_section_in_the_runbook():
    headings = re.findall(r"^## (\w+)", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    for rule in RULES:
        place, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert place == "docs/runbook.md"
        assert anchor in {heading.lower() for heading in headings}
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert {rule["alert"] for rule in RULES} <= {*headings, "EdgeproxyBacklogWillExpire"}


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken
                assert x < 24
                taken.add((x, y))
