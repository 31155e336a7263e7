"""An event whose changes are written over the old values in place is the one written all anew."""

import json

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgeproxy.events import Event

KEYS = ("type", "event", "userId", "context", "properties", "traits", "sentAt", "custom")
VALUES = st.sampled_from(
    [
        '"x"', '"event"', '"properties"', "null", "7", "1.10", "1e400", "{}", "[]", '{"event":"x"}',
        '{"properties":{"a":1}}', '{"a": 1}', '"\\u0065vent"', '"a,b"', 'true', '[{"sentAt":"x"}]',
    ]
)  # fmt: skip
NAMES = st.sampled_from([*(f'"{key}"' for key in KEYS), '"\\u0065vent"', '"other"'])
COLONS = st.sampled_from([":", ":", ":", " : "])
EVENTS = st.lists(st.tuples(NAMES, COLONS, VALUES), max_size=6).map(
    lambda members: ("{" + ",".join("".join(member) for member in members) + "}").encode()
)
CHANGES = st.dictionaries(
    st.sampled_from(KEYS), st.one_of(st.none(), VALUES.map(str.encode)), max_size=4
)


def texts(raw: bytes) -> dict[str, bytes]:
    return {k: bytes(v) for k, v in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).items()}


@settings(max_examples=1500, deadline=None)
@given(raw=EVENTS, changes=CHANGES)
@example(raw=b'{"properties":{},"properties":{"a":1}}', changes={"properties": b"{}"})
@example(raw=b'{"traits":{"event":"x"},"event":"x"}', changes={"event": b'"y"'})
@example(raw=b'{"sentAt":"x"}', changes={"sentAt": None})
@example(raw=b'{"a":1,"sentAt":"x"}', changes={"sentAt": None})
def test_overwriting_in_place_is_writing_anew(raw: bytes, changes: dict[str, bytes | None]):
    event = Event(raw)
    wanted = texts(raw)
    for key, text in changes.items():
        event.put(key, text)
        wanted.pop(key, None) if text is None else wanted.update({key: text})
    body = event.body()
    assert texts(body) == wanted
    assert texts(body) == {key: bytes(text) for key, text in event.fields().items()}
    # No second one is left behind of what was changed: the first may be what had to be hidden.
    names = [name for name, _ in json.loads(body, object_pairs_hook=list)]
    assert all(names.count(key) <= 1 for key in changes)
