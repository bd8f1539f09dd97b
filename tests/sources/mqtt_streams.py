"""Strategies: payloads, packets and streams of a connection, as devices might send them and as nobody should."""

from __future__ import annotations

from hypothesis import strategies as st

from ringmain.sources.mqtt_codes import PacketType, Version
from ringmain.sources.mqtt_packets import Connect, Packet, Ping, Publish, Reply, Subscribe, encode
from ringmain.sources.mqtt_properties import Properties, write_varint

ARRIVAL_NS = 1_795_000_000_000_000_000
MAPS = [
    {"topic": "meters/{meter}/{quantity}", "series": "{meter}/{quantity}", "time": "t", "value": "v"},
    {"topic": "s/{meter}", "series": "s/{meter}", "time": "t", "value": "v", "time_unit": "s"},
    {"topic": "ns/{meter}", "series": "ns/{meter}", "time": "ts", "value": "tv", "time_unit": "ns"},
    {"topic": "odd/{meter}", "series": "odd/{meter}", "time": 't"', "value": "é"},
    {"topic": "q/{meter}", "series": "q/{meter}", "time": "t", "value": "v", "quality": "q"},
    {"topic": "tele/{plug}", "series": "{plug}/{name}", "time": "t", "values": {"p": "a.p", "v": "v"}},
    {"topic": "bare/{meter}", "series": "bare/{meter}", "value": ""},
]
TOPICS = [
    "meters/a/p",
    "meters/b/p",
    "meters/ü/p",
    "s/x",
    "ns/x",
    "odd/x",
    "q/x",
    "tele/x",
    "bare/x",
    "none",
    "meters/a/p/q",
]

spaces = st.sampled_from(["", "", "", " ", "  ", "\t", "\r\n", "\u00a0"])
integers = st.integers(-5, 4 * 10**18) | st.sampled_from(
    [0, 1, 9_223_372_036, 9_223_372_037, 9_223_372_036_854, 2**63 - 1, 2**63]
)
stamps = st.one_of(
    st.integers(1_790_000_000_000, 1_800_000_000_000).map(str),
    st.sampled_from([(ARRIVAL_NS + 300 * 10**9) // 10**6 + n for n in (-1, 0, 1)]).map(str),
    integers.map(str),
    st.sampled_from(
        ["01", "1e3", "1.5", "-0", "null", '"2026-01-01T00:00:00Z"', "1" * 19, "true", "", "+1", "0x1"]
    ),
)
digits = st.text("0123456789", min_size=1, max_size=20)
decimals = st.builds(
    "{}{}.{}{}".format,
    st.sampled_from(["", "-"]),
    digits,
    digits,
    st.sampled_from(["", "e5", "E-7", "e+22", "e-23"]),
)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-(2**64), 2**64).map(str),
    st.decimals(-1000, 1000, places=2).map(str),
    decimals,
    st.sampled_from(
        [
            "-0",
            "-0.0",
            "0",
            "1e400",
            "-1e400",
            "1e-400",
            "00",
            ".5",
            "5.",
            "1e",
            "NaN",
            "Infinity",
            '"1"',
            "null",
            "[1]",
        ]
    ),
    st.sampled_from(
        [
            "9007199254740993",
            "9007199254740992",
            "1e22",
            "1e23",
            "0.1e-22",
            "123456789012345678",
            "1.7976931348623157e308",
        ]
    ),
)
members = st.one_of(
    st.builds('"t"{}:{}{}'.format, spaces, spaces, stamps),
    st.builds('"v"{}:{}{}'.format, spaces, spaces, numbers),
    st.builds('"ts"{}:{}{}'.format, spaces, spaces, stamps),
    st.builds('"tv"{}:{}{}'.format, spaces, spaces, numbers),
    st.sampled_from(
        [
            '"q": 1',
            '"q": "good"',
            '"a": {"p": 5}',
            '"\\u0074": 3',
            '"t\\"": 3',
            '"é": 4',
            '"x": "}"',
            '"": 0',
            '"v"',
            "v: 1",
        ]
    ),
)
usual = st.builds(
    "{{{}{}{},{}{}{}}}{}".format,
    spaces,
    st.one_of(st.builds('"t":{}{}'.format, spaces, stamps), st.builds('"ts":{}{}'.format, spaces, stamps)),
    spaces,
    spaces,
    st.one_of(st.builds('"v":{}{}'.format, spaces, numbers), st.builds('"tv":{}{}'.format, spaces, numbers)),
    spaces,
    spaces,
)
plain = st.builds(
    '{{"t":{},"v":{}}}'.format,
    st.integers(1_790_000_000_000, 1_800_000_000_000),
    st.decimals(-500, 500, places=2),
)
strange = st.lists(members, max_size=4).map(lambda parts: "{" + ",".join(parts) + "}")
payloads = st.one_of(
    plain.map(str.encode),
    plain.map(str.encode),
    usual.map(str.encode),
    usual.map(str.encode),
    strange.map(str.encode),
    st.binary(max_size=20),
    st.builds(lambda text, cut: text.encode()[:cut], usual, st.integers(0, 30)),
    st.integers(0, 600).map(lambda n: b'{"t":1790000000000,"v":' + b" " * n + b"1}"),
)


@st.composite
def packets(draw: st.DrawFn, version: Version) -> bytes:
    """The bytes of one packet, mostly a PUBLISH as devices send it."""
    kind = draw(st.integers(0, 40))
    packet_id = draw(st.integers(1, 30))
    topic = draw(st.sampled_from(TOPICS))
    if kind == 0:
        others: list[Packet] = [
            Ping(PacketType.PINGREQ),
            Reply(PacketType.PUBREL, packet_id),
            Subscribe(packet_id, (("a", 0),)),
        ]
        return encode(draw(st.sampled_from(others)), version)
    if kind == 1:
        raw = draw(st.binary(min_size=0, max_size=12))
        return (
            bytes((draw(st.sampled_from([0x32, 0x30, 0x3C, 0x36, 0x38, 0x33, 0xE0, 0x10, 0x00])),))
            + write_varint(len(raw))
            + raw
        )
    if kind == 2:
        return encode(Publish(topic, b"x" * draw(st.integers(2000, 2100)), 1, packet_id), version)
    if kind == 3:
        broken = bytearray(encode(Publish(topic, draw(payloads), 1, packet_id), version))
        broken[draw(st.integers(0, len(broken) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(broken)
    qos = draw(st.sampled_from([0, 1, 1, 1, 1, 1, 2]))
    properties = Properties()
    if version is Version.V5 and kind < 8:
        properties = Properties(topic_alias=draw(st.integers(1, 3)), user_properties=(("a", "b"),))
    dup = qos > 0 and draw(st.booleans())
    return encode(
        Publish(topic, draw(payloads), qos, packet_id, dup, draw(st.booleans()), properties), version
    )


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """A connection's bytes, cut anywhere."""
    version = draw(st.sampled_from(list(Version)))
    lasting = Properties(session_expiry_s=60) if version is Version.V5 else Properties()
    connect = encode(Connect(version, "device", clean=draw(st.booleans()), properties=lasting), version)
    known = b"".join(encode(Publish(topic, b'{"t":1,"v":1}', 0), version) for topic in TOPICS)
    rest = b"".join(draw(st.lists(packets(version), min_size=1, max_size=25)))
    cuts = sorted(draw(st.lists(st.integers(0, len(rest)), max_size=6)))
    return [
        connect,
        known,
        *(rest[a:b] for a, b in zip([0, *cuts], [*cuts, len(rest)], strict=True) if a < b),
    ]


@st.composite
def objects(draw: st.DrawFn, time_key: str, value_key: str) -> bytes:
    """JSON near to `{"t": 1, "v": 2}`: most of it the compiled path could take."""
    time = f'"{time_key}"{draw(spaces)}:{draw(spaces)}{draw(stamps)}'
    value = f'"{value_key}"{draw(spaces)}:{draw(spaces)}{draw(numbers)}'
    odd = [(value, time), (time, time), (value, value), (time,), (time, value, value)]
    parts = draw(st.sampled_from([(time, value)] * 5 + odd))
    comma = f"{draw(spaces)},{draw(spaces)}"
    text = "{" + draw(spaces) + comma.join(parts) + draw(spaces) + "}"
    return (draw(spaces) + text + draw(spaces)).encode()
