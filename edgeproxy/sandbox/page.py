"""The sandbox's page: the newest events, server-rendered, no script."""

from collections.abc import Iterable, Mapping
from html import escape

from edgeproxy.sandbox.store import Arrival, iso

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;
 color-scheme:light dark}
pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:.3rem 0 0;font-size:13px}
article{border-top:1px solid #8886;padding:.6rem 0}
.blocked{color:#b3261e;font-weight:600}
code{font-size:13px}
"""


def render(arrivals: Iterable[Arrival], stats: Mapping[str, object], region: str) -> str:
    """The page's HTML. `arrivals` come newest last and are shown newest first."""
    entries = "".join(_entry(arrival) for arrival in reversed(list(arrivals)))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="refresh" content="2"><title>Sandbox</title>'
        f"<style>{_STYLE}</style></head><body><h1>Sandbox</h1>"
        f"<p>A stand-in for Hightouch&rsquo;s events API in <code>{escape(region)}</code>. "
        f"{stats['events']} events in {stats['requests']} requests, "
        f"{stats['blocked']} blocked.</p>"
        f"{entries or '<p>Nothing has arrived yet.</p>'}</body></html>"
    )


def _entry(arrival: Arrival) -> str:
    blocked = ""
    if arrival.blocked:
        blocked = f' <span class="blocked">blocked: {escape(arrival.blocked)}</span>'
    text = escape(arrival.event.decode())
    return (
        f"<article><b>{escape(arrival.type or '(no type)')}</b> "
        f"<time>{iso(arrival.received_at)}</time>{blocked}<pre>{text}</pre></article>"
    )
