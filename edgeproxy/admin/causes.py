"""Why events do not arrive, in words, and what an operator does about it. Pure.

Lanes have their reasons in `reasons`; here are the causes on the way in, and how all of them become
the findings that the page shows: the worst first, nothing while all is well.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from msgspec import Struct

from edgeproxy.admin.reasons import Meaning, meaning

__all__ = ["Finding", "cause", "findings"]

Level = Literal["outage", "trouble", "notice"]


class Finding(Struct, frozen=True):
    """One thing that an operator should know, in the order of how bad it is."""

    level: Level
    title: str
    words: str
    remedy: str
    view: str = ""
    """The page's view that shows more: `dead-letters`, `setup` or `live`, perhaps with a filter."""


#: Seconds that events wait before a lane that tries again is an outage.
_PATIENCE = 10.0
#: Seconds for which a request that found no room counts as how things are.
_JUST_NOW = 60.0
#: Characters of a user agent that are shown.
_AGENT = 80
_LEVELS: Mapping[Level, int] = {"outage": 0, "trouble": 1, "notice": 2}

_LOOK = "Dead letters shows which ones."
_CAUSES = {
    "missing_event": Meaning(
        "track events without `event`, the name of what happened; Hightouch would block them "
        "without saying so",
        f"Have the site send a name with each track call. {_LOOK} Those that a mapping rule can name "
        "can be replayed once it is in force.",
    ),
    "missing_identity": Meaning(
        "events with neither anonymousId nor userId; Hightouch would block them",
        f"An SDK adds them by itself; whoever calls the API directly must. {_LOOK}",
    ),
    "missing_type": Meaning("events without `type`", f"Whoever calls the API must say it. {_LOOK}"),
    "unknown_type": Meaning(
        "events of a type that Hightouch does not know",
        f"It knows track, identify, page, screen, group and alias. {_LOOK}",
    ),
    "event_too_large": Meaning(
        "events larger than Hightouch takes",
        f"Send less with each, or leave fields out by a mapping rule and replay. {_LOOK}",
    ),
    "too_old": Meaning(
        "events older than Hightouch takes",
        "Either an app was offline for long, or a device's clock is wrong, or events waited here "
        f"through a long outage. {_LOOK}",
    ),
    "bad_type": Meaning(
        "events with values of the wrong type",
        'Correct them at the source, or set [validation] types = "coerce" and replay.',
    ),
    "bad_timestamp": Meaning(
        "events with a time that cannot be read",
        "Correct them at the source: ISO 8601, such as 2024-05-01T12:00:00.000Z.",
    ),
    "invalid_event": Meaning(
        "events that are no valid JSON on their own (NaN, broken text)",
        f"Something writes JSON by hand. {_LOOK}",
    ),
    "not_an_object": Meaning("events that are no JSON object", f"They must be one. {_LOOK}"),
    "rejected_upstream": Meaning(
        "events that Hightouch refused while it took others",
        f"Its answer is kept with each. {_LOOK}",
    ),
}

_REFUSED = {
    "unknown_key": Meaning(
        "carried a write key that is not one of this proxy's sources",
        "Their events are not kept. Put the source's write key into the SDK (SDK set-up shows where "
        "it stands), or add the key to [[sources]] write_key, then: edgeproxy reload",
    ),
    "origin_not_allowed": Meaning(
        "came from a web site that no source allows",
        "Add the site to allowed_origins of its source, then: edgeproxy reload",
    ),
    "invalid_json": Meaning(
        "held no valid JSON", "Something on the way changes bodies, or writes JSON by hand."
    ),
    "invalid_envelope": Meaning(
        'were not shaped as SDKs shape them ({"batch": [...]})',
        "Whoever calls the API directly must send a batch or a single event.",
    ),
    "request_too_large": Meaning(
        "were larger than [server] max_request",
        "Have the SDK send smaller batches, or raise [server] max_request.",
    ),
    "not_found": Meaning(
        "asked for paths that are none of this proxy's",
        "Mostly scanners. If events are missing, compare the SDK's address with SDK set-up.",
    ),
    "unsupported_encoding": Meaning(
        "were compressed in a way that is not known",
        "gzip, deflate, br and zstd are.",
    ),
}
#: Refusals that are worth a word even when all else is well; scanners cause the others.
_TELLING = frozenset(_REFUSED) - {"not_found"}


def cause(code: str) -> Meaning:
    """What a quarantine code says to a person."""
    return _CAUSES.get(code) or Meaning(
        f"events that a filter set aside or that were refused ({code})", _LOOK
    )


def findings(
    status: Mapping[str, Any],
    lately: Mapping[tuple[str, ...], int],
    last: Mapping[str, Mapping[str, Any]],
) -> Sequence[Finding]:
    """What stands between events and Hightouch at the moment, the worst first.

    Args:
        status: the document of `/status`.
        lately: how much each counter grew within 15 minutes: `("quarantined", source, code)`,
            `("refused", code)`, `("skewed", source)`.
        last: of refused requests by code, and of wrong clocks by source as `clock:<source>`: what is
            known of the last one, with its age in seconds.
    """
    found = [
        *_accepting(status, last.get("buffer_full")),
        *_lanes(status),
        *_refused(lately, last),
        *_quarantined(lately),
        *_clocks(lately, last),
    ]
    return sorted(found, key=lambda finding: _LEVELS[finding.level])


def _accepting(status: Mapping[str, Any], refused: Mapping[str, Any] | None) -> Iterator[Finding]:
    reason = status.get("not_ready")
    if not reason and refused and refused["age"] < _JUST_NOW:
        # Room is left for small requests, or it is one source's share that is used up.
        reason = refused["message"]
    if reason:
        yield Finding(
            "outage",
            "New events are turned away",
            f"{_upper(reason)}. Clients are answered 503 and asked to come back; well-behaved SDKs "
            "keep their events meanwhile.",
            "Space returns as events are delivered: mend the lanes below first. Else free disk "
            "space, or raise [buffer] max_size and restart.",
        )


def _lanes(status: Mapping[str, Any]) -> Iterator[Finding]:
    """One for each reason: lanes that fail alike are told together."""
    alike: dict[tuple[str, str], list[str]] = {}
    for lane in status["lanes"]:
        if lane["state"] != "ok" and lane["reason"]:
            alike.setdefault((lane["reason"], lane["state"]), []).append(lane["name"])
    buffer = status["buffer"]
    waiting = buffer["events"]
    kept = f" {waiting:,} events wait on disk; nothing is lost." if waiting else ""
    for (reason, state), names in alike.items():
        told = meaning(reason)
        is_long = (buffer["oldest_age_seconds"] or 0) > _PATIENCE
        yield Finding(
            "outage" if state == "parked" or is_long else "trouble",
            f"Nothing gets through to Hightouch from {_listed(names)}",
            f"{_upper(told.words)} ({reason}).{kept}",
            told.remedy,
        )


def _refused(
    lately: Mapping[tuple[str, ...], int], last: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    for key, count in lately.items():
        if key[0] != "refused" or key[1] not in _TELLING:
            continue
        told = _REFUSED[key[1]]
        title = (
            "Somebody sends with a wrong write key"
            if key[1] == "unknown_key"
            else f"Requests are refused ({key[1]})"
        )
        words = f"{_requests(count)} in the last 15 minutes {told.words}.{_who(last.get(key[1]))}"
        yield Finding("trouble", title, words, told.remedy, "setup")


def _quarantined(lately: Mapping[tuple[str, ...], int]) -> Iterator[Finding]:
    for key, count in lately.items():
        if key[0] != "quarantined":
            continue
        _, source, code = key
        told = cause(code)
        yield Finding(
            "trouble",
            f"{count:,} {'event is' if count == 1 else 'events are'} set aside: {code}",
            f"In the last 15 minutes {source} sent {told.words}.",
            told.remedy,
            f"dead-letters?code={code}",
        )


def _clocks(
    lately: Mapping[tuple[str, ...], int], last: Mapping[str, Mapping[str, Any]]
) -> Iterator[Finding]:
    for key, count in lately.items():
        if key[0] != "skewed":
            continue
        seconds = last.get(f"clock:{key[1]}", {}).get("seconds", 0.0)
        way = "ahead" if seconds > 0 else "behind"
        yield Finding(
            "notice",
            f"A clock of {key[1]} is {_span(abs(seconds))} {way}",
            f"{count:,} events in the last 15 minutes came from devices whose clock is wrong. They "
            "are delivered; Hightouch dates them by the difference between their own times, so look "
            "for them at the time they were received.",
            "Set the clock of that device or server (NTP). Live shows the events.",
            f"live?source={key[1]}",
        )


def _who(last: Mapping[str, Any] | None) -> str:
    if not last:
        return ""
    parts = [f"from {last['origin']}" if last.get("origin") else f"from {last['address']}"]
    if agent := last.get("agent"):
        parts.append(f"by {agent if len(agent) <= _AGENT else agent[:_AGENT] + '…'}")
    return f" The last came {' '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    if len(names) > 4:
        return f"{', '.join(names[:3])} and {len(names) - 3} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count:,} requests"


def _span(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size * 0.95:
            count = round(seconds / size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds:.0f} seconds"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
