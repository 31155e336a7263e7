"""The judge: compares the ledger with what the buffer still holds, without the proxy's code."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate
from math import inf

import msgspec

from tests.crash.harness.ledger import Arrival, Ledger, Sent, fields

__all__ = ["Figures", "Leftovers", "Rules", "findings"]

#: What the contract adds to an event, where it is not there.
_ADDED = {"sentAt", "originalTimestamp", "messageId", "type", "context"}
_ADDED_CONTEXT = {"ip", "userAgent"}


class Rules(msgspec.Struct, frozen=True):
    """What a scenario allows beyond the contract's promises."""

    #: "none": no event is delivered twice. "crash": batches on their way at a crash may repeat, and
    #: what clients repeated meanwhile.
    duplicates: str = "none"
    #: Events that a counted rule may have removed.
    expired: int = 0
    #: A refused event (503) must not arrive; False where the disk may keep what it refused.
    refused_stay_out: bool = True
    #: Seconds by which a clock may be off that the scenario moves.
    clock_slack: float = 1.0
    payloads: bool = True
    #: False where dead letters were replayed: those come after what their users sent meanwhile.
    order: bool = True
    #: Told 200 and not on disk by the operator's choice ([buffer] durability "os").
    lost: int = 0


class Leftovers(msgspec.Struct):
    """What the buffer's folder holds after the end, read by the harness itself."""

    events: list[bytes] = []
    dead: list[tuple[str, bytes]] = []  # code, body


class Figures(msgspec.Struct):
    """One scenario in numbers."""

    scenario: str = ""
    seed: int = 0
    sent: int = 0
    accepted: int = 0
    requests: int = 0
    failed_requests: int = 0
    refused_requests: int = 0
    delivered: int = 0
    deliveries: int = 0
    repeated: int = 0
    dead: int = 0
    left: int = 0
    starts: int = 0
    seconds: float = 0.0
    slowest_answer: float = 0.0
    peak_memory_mb: float = 0.0


def findings(ledger: Ledger, left: Leftovers, rules: Rules) -> list[str]:
    """Everything that breaks a promise, in words; empty where all is kept."""
    dead = _by_ref([body for _, body in left.dead])
    waiting = _by_ref(left.events)
    found = [f"received what was never sent: {text[:200]!r}" for text in ledger.strays]
    found += ledger.complaints
    found += [
        f"received what was never sent: {ref}" for ref in ledger.arrivals if ref not in ledger.sent
    ]
    found += _lost(ledger, dead, waiting, rules)
    found += _twofold_fates(ledger, dead, waiting, rules)
    found += _duplicates(ledger, rules)
    # What was lost is told above; that it holds nobody back any more is no further fault.
    if rules.order:
        found += _order(ledger, dead + Counter(_missing(ledger, dead, waiting)))
    if rules.refused_stay_out:
        found += [
            f"{ref}: was refused (503) and arrived"
            for ref, sent in ledger.sent.items()
            if sent.refused and sent.accepted is None and ledger.arrivals.get(ref)
        ]
    if rules.payloads:
        found += _payloads(ledger, rules)
    return found


def _by_ref(bodies: list[bytes]) -> Counter[str]:
    refs: Counter[str] = Counter()
    for body in bodies:
        try:
            refs[msgspec.json.decode(bytes(fields(body)["ref"]), type=str)] += 1
        except (KeyError, UnicodeDecodeError, msgspec.DecodeError):
            continue  # none of the ledger's: what a fuzzer sent
    return refs


def _missing(ledger: Ledger, dead: Counter[str], waiting: Counter[str]) -> list[str]:
    return [
        ref
        for ref, sent in ledger.sent.items()
        if sent.accepted is not None
        and not ledger.delivered(ref)
        and not dead[ref]
        and not waiting[ref]
    ]


def _lost(ledger: Ledger, dead: Counter[str], waiting: Counter[str], rules: Rules) -> list[str]:
    lost = _missing(ledger, dead, waiting)
    if len(lost) <= rules.expired + rules.lost:
        return []
    return [f"{len(lost)} accepted events were lost, e.g. {', '.join(lost[:5])}"] + [
        f"{ref}: was told {sent.rejected} and is no dead letter"
        for ref, sent in ledger.sent.items()
        if sent.rejected and not dead[ref]
    ]


def _twofold_fates(
    ledger: Ledger, dead: Counter[str], waiting: Counter[str], rules: Rules
) -> list[str]:
    found = [f"{ref}: is {n} dead letters" for ref, n in dead.items() if n > 1]
    if rules.duplicates == "none":
        found += [f"{ref}: delivered and a dead letter" for ref in dead if ledger.delivered(ref)]
        found += [f"{ref}: delivered and still here" for ref in waiting if ledger.delivered(ref)]
    return found


def _duplicates(ledger: Ledger, rules: Rules) -> list[str]:
    if rules.duplicates == "crash":
        return []
    found = []
    for ref, sent in ledger.sent.items():
        times = ledger.times_delivered(ref)
        # Without an id of its own, an event that is sent twice is two events.
        if times > (1 if sent.has_id else sent.times_sent):
            found.append(f"{ref}: delivered {times} times")
    return found


def _order(ledger: Ledger, gone: Counter[str]) -> list[str]:
    """No event is sent while an earlier accepted one of its user is unsettled."""
    by_user: dict[tuple[str, str], list[Sent]] = defaultdict(list)
    for sent in ledger.sent.values():
        if sent.first_sent is not None:
            by_user[sent.source, sent.user].append(sent)
    found: list[str] = []
    for events in by_user.values():
        settled = [_settled(ledger, sent, gone) for sent in events]
        # The latest of all before: where that lies before an arrival, nothing more need be looked at.
        latest = [0, *accumulate(settled, max)]
        for index, later in enumerate(events):
            for arrival in ledger.arrivals.get(later.ref, ()):
                found += _overtaken(ledger, events, settled, latest, index, arrival)
    return found


def _settled(ledger: Ledger, sent: Sent, gone: Counter[str]) -> float:
    """The tick from which on an event holds nobody back."""
    if sent.accepted is None or gone[sent.ref]:
        return 0
    answers = [ledger.deliveries[arrival.delivery].answered for arrival in ledger.taken(sent.ref)]
    return min((tick for tick in answers if tick is not None), default=inf)


def _overtaken(
    ledger: Ledger,
    events: Sequence[Sent],
    settled: Sequence[float],
    latest: Sequence[float],
    index: int,
    arrival: Arrival,
) -> list[str]:
    """The earlier events of a user that the one at `index` overtook when it arrived."""
    later = events[index]
    began = ledger.deliveries[arrival.delivery].began
    found = []
    while latest[index] >= began:
        index -= 1
        earlier = events[index]
        # Not certain to have been accepted first: not answered when the later one was sent.
        unclear = (earlier.accepted or inf) > (later.first_sent or 0)
        together = any(
            other.delivery == arrival.delivery and other.position < arrival.position
            for other in ledger.arrivals.get(earlier.ref, ())
        )
        same_request = earlier.first_sent == later.first_sent
        if settled[index] >= began and not together and (same_request or not unclear):
            found.append(f"{later.ref} was sent before {earlier.ref} of the same user was settled")
    return found


def _payloads(ledger: Ledger, rules: Rules) -> list[str]:
    found = []
    for ref, arrivals in ledger.arrivals.items():
        sent = ledger.sent.get(ref)
        if sent is None:
            continue
        first = arrivals[0]
        try:
            _same(sent, first, ledger, rules)
            for other in arrivals[1:]:
                if sent.has_id:
                    _same(sent, other, ledger, rules)
        except AssertionError as error:
            found.append(f"{ref}: {error}")
    return found


def _same(sent: Sent, arrival: Arrival, ledger: Ledger, rules: Rules) -> None:
    want, got = dict(fields(sent.text)), dict(fields(arrival.text))
    want.pop("writeKey", None)
    _check_times(sent, want, got, ledger.deliveries[arrival.delivery].at, rules)
    for key in ("sentAt", "originalTimestamp"):
        want.pop(key, None)
        got.pop(key, None)
    if "messageId" not in want:
        assert len(json.loads(bytes(got.pop("messageId")))) == 36, "no messageId was added"
    if "type" not in want:
        assert json.loads(bytes(got.pop("type"))) == sent.type, "another type was added"
    if "context" in got:
        theirs = dict(fields(bytes(got.pop("context"))))
        ours = dict(fields(bytes(want.pop("context")))) if "context" in want else {}
        for key in _ADDED_CONTEXT - ours.keys():
            theirs.pop(key, None)
        assert _texts(theirs) == _texts(ours), f"context differs: {_texts(theirs)}"
    assert _texts(got) == _texts(want), f"differs: sent {_texts(want)}, arrived {_texts(got)}"


def _check_times(sent: Sent, want: dict, got: dict, at: float, rules: Rules) -> None:
    own = want.get("sentAt") or (
        msgspec.Raw(json.dumps(sent.batch_sent_at).encode()) if sent.batch_sent_at else None
    )
    original = want.get("originalTimestamp") or want.get("timestamp") or own
    if original is not None:
        assert _time(got["originalTimestamp"]) == _time(original), "originalTimestamp was changed"
    shifted = _time(got["sentAt"])
    slack = rules.clock_slack
    if own is None:
        assert abs(shifted - at) <= slack + 60, f"sentAt is {shifted - at} s off"
    else:
        assert shifted >= _time(own) - 0.002, "sentAt went back"
        # The time spent here: at most what passed since it was written, all of it in this run.
        assert shifted <= at + slack, f"sentAt is {shifted - at} s in the future"


def _texts(raws: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    return {key: bytes(raw) for key, raw in raws.items()}


def _time(raw: msgspec.Raw) -> float:
    moment = datetime.fromisoformat(json.loads(bytes(raw)))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
