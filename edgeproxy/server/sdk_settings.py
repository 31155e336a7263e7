"""What SDKs fetch before they send anything. A wrong shape here switches apps off (SDKS.md, 5)."""

import msgspec

from edgeproxy.config import Source

__all__ = ["project_settings", "source_config"]


def project_settings(write_key: str, api_host: str, protocol: str) -> bytes:
    """Answer `GET /v1/projects/{writeKey}/settings`: suits Swift, Kotlin and Segment's browser SDK.

    Args:
        write_key: the key that was asked with: Kotlin wants it back as `apiKey`.
        api_host: public host with port and prefix, and `/v1`.
        protocol: `https` or `http`.
    """
    destination = {
        "apiKey": write_key,
        "apiHost": api_host,
        "protocol": protocol,
        "unbundledIntegrations": [],
        "addBundledMetadata": True,
        "maybeBundledConfigIds": {},
        "versionSettings": {"version": "4.4.7", "componentTypes": ["browser"]},
    }
    return msgspec.json.encode(
        {
            "integrations": {"Segment.io": destination},
            "plan": {},
            "edgeFunction": {},
            "middlewareSettings": {"routingRules": []},
            "enabledMiddleware": {},
            "metrics": {"sampleRate": 0},
            "legacyVideoPluginsEnabled": False,
            "remotePlugins": [],
            "consentSettings": {},
        }
    )


def source_config(source: Source, write_key: str) -> bytes:
    """Answer `GET /sourceConfig/`: RudderStack's browser SDK sends nothing without it."""
    off = {"enabled": False}
    return msgspec.json.encode(
        {
            "source": {
                "id": source.name,
                "name": source.name,
                "writeKey": write_key,
                "enabled": True,
                "workspaceId": "edgeproxy",
                "destinations": [],
                "config": {"statsCollection": {"errors": off, "metrics": off}},
            },
            "updatedAt": "2026-01-01T00:00:00.000Z",
        }
    )
