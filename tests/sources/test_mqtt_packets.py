"""The MQTT codec against itself, the standards' limits, and arbitrary bytes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringmain.sources.mqtt_codes import MqttError, PacketType, Reason, Version
from ringmain.sources.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Ping,
    Publish,
    Reply,
    Subscribe,
    SubscribeReply,
    Unsubscribe,
    Will,
    decode,
    encode,
)
from ringmain.sources.mqtt_properties import TABLE, WILL, Properties, Wire, read_varint, write_varint

EXAMPLES = settings(max_examples=150, derandomize=True, deadline=None)

texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=20)
names = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="\0+#"), min_size=1, max_size=20
)
blobs = st.binary(max_size=40)
identifiers = st.integers(1, 65_535)
FLAGS = {0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A}


@st.composite
def properties_in(draw: st.DrawFn, place: int) -> Properties:
    """Any properties that may come in that place."""
    values: dict[str, object] = {}
    for identifier, (name, wire, places) in TABLE.items():
        if place not in places or not draw(st.booleans()):
            continue
        if wire is Wire.PAIR:
            values[name] = tuple(draw(st.lists(st.tuples(texts, texts), max_size=3)))
        elif wire is Wire.TEXT:
            values[name] = draw(texts)
        elif wire is Wire.BINARY:
            values[name] = draw(blobs)
        else:
            top = {Wire.BYTE: 255, Wire.U16: 65_535, Wire.U32: 2**32 - 1, Wire.VARINT: 268_435_455}[wire]
            values[name] = draw(st.integers(1, 1 if identifier in FLAGS else top))
    return Properties(**values)  # type: ignore[arg-type]


@st.composite
def packets(draw: st.DrawFn, version: Version) -> Packet:
    """Any valid packet of that version."""
    kind = draw(st.sampled_from([k for k in PacketType if k is not PacketType.AUTH]))
    none = Properties()
    props = draw(properties_in(kind)) if version is Version.V5 else none
    if kind is PacketType.CONNECT:
        will = None
        if draw(st.booleans()):
            will_props = draw(properties_in(WILL)) if version is Version.V5 else none
            will = Will(draw(names), draw(blobs), draw(st.integers(0, 2)), draw(st.booleans()), will_props)
        user = draw(st.none() | texts)
        password = draw(st.none() | blobs) if user is not None or version is Version.V5 else None
        return Connect(
            version,
            draw(texts),
            draw(st.booleans()),
            draw(st.integers(0, 65_535)),
            user,
            password,
            will,
            props,
        )
    if kind is PacketType.CONNACK:
        return Connack(draw(st.booleans()), draw(st.integers(0, 255)), props)
    if kind is PacketType.PUBLISH:
        qos = draw(st.integers(0, 2))
        dup = draw(st.booleans()) and qos > 0
        topic = draw(names) if props.topic_alias is None else draw(names | st.just(""))
        return Publish(
            topic, draw(blobs), qos, draw(identifiers) if qos else 0, dup, draw(st.booleans()), props
        )
    if kind is PacketType.SUBSCRIBE:
        filters = st.lists(st.tuples(names, st.integers(0, 2)), min_size=1, max_size=3)
        return Subscribe(draw(identifiers), tuple(draw(filters)), props)
    if kind is PacketType.UNSUBSCRIBE:
        return Unsubscribe(draw(identifiers), tuple(draw(st.lists(names, min_size=1, max_size=3))), props)
    if kind in (PacketType.SUBACK, PacketType.UNSUBACK):
        codes = tuple(draw(st.lists(st.integers(0, 255), max_size=4)))
        return SubscribeReply(kind, draw(identifiers), codes, props)
    if kind in (PacketType.PINGREQ, PacketType.PINGRESP):
        return Ping(kind)
    if kind is PacketType.DISCONNECT:
        return Disconnect(draw(st.integers(0, 255)) if version is Version.V5 else 0, props)
    return Reply(kind, draw(identifiers), draw(st.integers(0, 255)) if version is Version.V5 else 0, props)


def split(data: bytes) -> tuple[int, bytes]:
    """First byte and body of one whole packet."""
    length, at = read_varint(data, 1, len(data))
    assert at + length == len(data)
    return data[0], data[at:]


def decoded(first: int, body: bytes, version: Version) -> Packet | MqttError:
    """The packet, or why there is none; any other exception fails the test."""
    try:
        return decode(first, body, version)
    except MqttError as error:
        return error


@pytest.mark.parametrize("version", list(Version))
@EXAMPLES
@given(data=st.data())
def test_every_packet_survives_encoding_and_decoding(version: Version, data: st.DataObject) -> None:
    packet = data.draw(packets(version))
    assert decode(*split(encode(packet, version)), version) == packet


@pytest.mark.parametrize("version", list(Version))
@EXAMPLES
@given(first=st.integers(0, 255), body=st.binary(max_size=60))
def test_any_bytes_decode_or_are_refused_with_a_reason(version: Version, first: int, body: bytes) -> None:
    packet = decoded(first, body, version)
    if isinstance(packet, MqttError):
        assert packet.reason >= 0x80
        assert packet.text
    else:
        again = encode(packet, packet.version if isinstance(packet, Connect) else version)
        assert decode(*split(again), version) == packet


@EXAMPLES
@given(data=st.data(), cut=st.integers(0, 200))
def test_a_packet_that_was_cut_or_damaged_raises_nothing_but_the_protocol_error(
    data: st.DataObject, cut: int
) -> None:
    whole = bytearray(encode(data.draw(packets(Version.V5)), Version.V5))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    packet = decoded(whole[0], bytes(whole[2:cut]), Version.V5)
    assert not isinstance(packet, MqttError) or packet.text


@pytest.mark.parametrize(
    ("value", "wire"),
    [(0, "00"), (127, "7f"), (128, "8001"), (16_383, "ff7f"), (16_384, "808001"), (268_435_455, "ffffff7f")],
)
def test_variable_byte_integers_have_the_standards_examples(value: int, wire: str) -> None:
    # MQTT 5.0, table 1-1
    assert write_varint(value).hex() == wire
    assert read_varint(bytes.fromhex(wire), 0, len(wire) // 2) == (value, len(wire) // 2)


@pytest.mark.parametrize(
    ("first", "body", "version", "reason"),
    [
        (0x36, b"\0\1a\0\1", Version.V311, Reason.MALFORMED_PACKET),  # QoS 3
        (0x38, b"\0\1a", Version.V311, Reason.MALFORMED_PACKET),  # DUP at QoS 0
        (0x32, b"\0\1a\0\0", Version.V311, Reason.PROTOCOL_ERROR),  # packet identifier 0
        (0x30, b"\0\1#", Version.V311, Reason.TOPIC_NAME_INVALID),
        (0x30, b"\0\3a/+", Version.V311, Reason.TOPIC_NAME_INVALID),
        (0x30, b"\0\0", Version.V311, Reason.PROTOCOL_ERROR),  # no topic
        (0x30, b"\0\2a\0", Version.V311, Reason.MALFORMED_PACKET),  # U+0000
        (0x30, b"\0\3\xed\xa0\x80", Version.V311, Reason.MALFORMED_PACKET),  # a surrogate
        (0x30, b"\0\2\xc3\x28", Version.V311, Reason.MALFORMED_PACKET),  # not UTF-8
        (0x30, b"\0\5a", Version.V311, Reason.MALFORMED_PACKET),  # topic longer than the packet
        (0x30, b"\0\1a\2\x01\x02", Version.V5, Reason.PROTOCOL_ERROR),  # payload format 2
        (0x30, b"\0\1a\4\x01\x01\x01\x01", Version.V5, Reason.PROTOCOL_ERROR),  # property twice
        (0x30, b"\0\1a\2\x7f\x01", Version.V5, Reason.MALFORMED_PACKET),  # unknown property
        (0x30, b"\0\1a\5\x11\0\0\0\1", Version.V5, Reason.PROTOCOL_ERROR),  # CONNECT's property in PUBLISH
        (0x60, b"\0\1", Version.V311, Reason.MALFORMED_PACKET),  # PUBREL without its flags
        (0x82, b"\0\1", Version.V311, Reason.PROTOCOL_ERROR),  # SUBSCRIBE without a filter
        (0x82, b"\0\1\0\1a\3", Version.V311, Reason.MALFORMED_PACKET),  # QoS 3 asked for
        (0xF0, b"", Version.V5, Reason.PROTOCOL_ERROR),  # AUTH
        (0x00, b"", Version.V5, Reason.PROTOCOL_ERROR),
        (0xC0, b"x", Version.V311, Reason.MALFORMED_PACKET),  # PINGREQ with a body
        (0x10, b"\0\4MQTT\3\2\0\0\0\0", Version.V311, Reason.UNSUPPORTED_VERSION),
        (0x10, b"\0\6MQIsdp\3\2\0\0\0\1a", Version.V311, Reason.UNSUPPORTED_VERSION),
        (0x10, b"\0\4HTTP\4\2\0\0\0\0", Version.V311, Reason.MALFORMED_PACKET),
        (0x10, b"\0\4MQTT\4\3\0\0\0\1a", Version.V311, Reason.MALFORMED_PACKET),  # reserved flag
        (0x10, b"\0\4MQTT\4\x42\0\0\0\1a\0\1p", Version.V311, Reason.MALFORMED_PACKET),  # password alone
        (0x10, b"\0\4MQTT\4\x0a\0\0\0\1a", Version.V311, Reason.MALFORMED_PACKET),  # will QoS without a will
        (0x10, b"\0\4MQTT\4\2\0\0\0\1ax", Version.V311, Reason.MALFORMED_PACKET),  # bytes behind the end
    ],
)
def test_what_the_standards_forbid_is_refused_with_its_reason(
    first: int, body: bytes, version: Version, reason: Reason
) -> None:
    with pytest.raises(MqttError) as caught:
        decode(first, body, version)
    assert caught.value.reason is reason
