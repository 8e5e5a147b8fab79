"""Nodes over loopback: what arrives, what is refused, what a ROS 2 peer would see of us."""

import os
import pathlib
import socket
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from cyclonedds.builtin import BuiltinDataReader, BuiltinTopicDcpsPublication
from cyclonedds.core import DDSException
from cyclonedds.domain import DomainParticipant
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from robo_rl.hardware.bridges import dds
from robo_rl.hardware.bridges import ros_types as rt
from robo_rl.hardware.errors import HardwareError, NotConnected


@pytest.fixture
def node(domain_id: int) -> Iterator[dds.Node]:
    with dds.Node("tester", domain_id) as node:
        yield node


def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.005)
    return True


def test_messages_arrive_in_order_and_once(node: dds.Node) -> None:
    subscription = node.subscription("/text", rt.String)
    publisher = node.publisher("/text", rt.String)
    assert eventually(lambda: publisher.matched() == 1)
    for k in range(5):
        publisher.publish(rt.String(str(k)))
    got: list[str] = []
    assert eventually(lambda: got.extend(m.data for m in subscription.take()) or len(got) == 5)
    assert got == ["0", "1", "2", "3", "4"]
    assert subscription.take() == []


def test_a_reader_that_falls_behind_keeps_the_newest(node: dds.Node) -> None:
    subscription = node.subscription("/text", rt.String, depth=2)
    publisher = node.publisher("/text", rt.String)
    assert eventually(lambda: publisher.matched() == 1)
    for k in range(5):
        publisher.publish(rt.String(str(k)))
    time.sleep(0.1)
    assert [m.data for m in subscription.take()] == ["3", "4"]
    assert publisher.dropped == 0


def test_a_latched_message_reaches_a_latecomer_that_asks(node: dds.Node) -> None:
    node.publisher("/twin/status", rt.String, latched=True).publish(rt.String("old"))
    ordinary = node.subscription("/twin/status", rt.String)
    assert eventually(lambda: ordinary.matched() == 1)
    topic = node._topic("/twin/status", rt.String)
    qos = Qos(Policy.Reliability.Reliable(10**7), Policy.Durability.TransientLocal)
    latecomer = DataReader(node._opened(), topic, qos)
    got: list[rt.String] = []
    assert eventually(lambda: got.extend(latecomer.take(N=2)) or len(got) > 0)
    assert got[0].data == "old"
    assert ordinary.take() == []


def test_a_publisher_that_leaves_is_no_message(node: dds.Node) -> None:
    other = dds.Node("other", node.domain_id)
    other.open()
    subscription = node.subscription("/text", rt.String)
    publisher = other.publisher("/text", rt.String)
    assert eventually(lambda: publisher.matched() == 1)
    other.close()
    assert eventually(lambda: subscription.matched() == 0)
    assert subscription.take() == []
    with pytest.raises(NotConnected):
        publisher.publish(rt.String("late"))
    other.close()


def test_the_wire_names_and_qualities_are_those_of_ros(node: dds.Node) -> None:
    observer = DomainParticipant(node.domain_id)
    reader = BuiltinDataReader(observer, BuiltinTopicDcpsPublication)
    node.publisher("/joint_states", rt.JointState)
    seen: dict[str, object] = {}

    def found() -> bool:
        seen.update({sample.topic_name: sample for sample in reader.take(N=50)})
        return "rt/joint_states" in seen and "ros_discovery_info" in seen

    assert eventually(found)
    endpoint = seen["rt/joint_states"]
    assert endpoint.type_name == "sensor_msgs::msg::dds_::JointState_"  # type: ignore[attr-defined]
    qos = endpoint.qos  # type: ignore[attr-defined]
    assert Policy.Durability.Volatile in qos
    assert isinstance(qos[Policy.Reliability], Policy.Reliability.Reliable)
    assert qos[Policy.History] == Policy.History.KeepLast(10)
    assert qos[Policy.Userdata].data.startswith(b"typehash=RIHS01_a13ee3a330e346c9")
    latched = seen["ros_discovery_info"].qos  # type: ignore[attr-defined]
    assert Policy.Durability.TransientLocal in latched


def test_the_node_list_shows_us_with_our_endpoints(node: dds.Node) -> None:
    publisher_count = 2
    for k in range(publisher_count):
        node.publisher(f"/text{k}", rt.String)
    node.subscription("/text0", rt.String)
    with dds.Node("observer", node.domain_id) as observer:
        participant = observer._opened()
        # The quality of service with which rmw implementations read it.
        qos = Qos(
            Policy.Reliability.Reliable(10**7),
            Policy.Durability.TransientLocal,
            Policy.History.KeepAll,
        )
        topic = Topic(participant, "ros_discovery_info", rt.ParticipantEntitiesInfo)
        reader = DataReader(participant, topic, qos)
        nodes: dict[str, rt.NodeEntitiesInfo] = {}

        def found() -> bool:
            for sample in reader.take(N=10):
                nodes.update({n.node_name: n for n in sample.node_entities_info_seq})
            return "tester" in nodes

        assert eventually(found)
    assert len(nodes["tester"].writer_gid_seq) == publisher_count
    assert len(nodes["tester"].reader_gid_seq) == 1


def test_anything_but_loopback_needs_an_explicit_yes() -> None:
    with pytest.raises(ValueError, match=r"not a loopback address.*allow_network=True"):
        dds.Node("tester", 0, address="192.168.1.5")
    dds.Node("tester", 0, address="192.168.1.5", allow_network=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs procfs")
def test_no_socket_listens_beyond_loopback(node: dds.Node) -> None:
    listening = []
    for entry in pathlib.Path("/proc/self/fd").iterdir():
        try:
            duplicate = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue
        with duplicate:
            if duplicate.family == socket.AF_INET and duplicate.getsockname()[1]:
                device = duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
                listening.append((duplicate.getsockname()[0], device.rstrip(b"\0")))
    assert listening
    assert all(address == "127.0.0.1" or device == b"lo" for address, device in listening)


def test_a_domain_keeps_its_address_within_a_process(node: dds.Node) -> None:
    with pytest.raises(HardwareError, match=r"already open on 127\.0\.0\.1"):
        dds.Node("other", node.domain_id, address="127.0.0.2").open()


@pytest.mark.parametrize("domain_id", [-1, 233])
def test_an_impossible_domain_is_refused(domain_id: int) -> None:
    with pytest.raises(ValueError, match=r"ROS_DOMAIN_ID must be in \[0, 232\]"):
        dds.Node("tester", domain_id)


def test_a_closed_node_says_so(domain_id: int) -> None:
    with pytest.raises(NotConnected, match="not open"):
        dds.Node("tester", domain_id).publisher("/text", rt.String)


def test_a_reader_that_fails_is_a_lost_link() -> None:
    class Broken:
        def take(self, N: int) -> list[object]:  # noqa: N803 - as cyclonedds calls it
            raise DDSException(DDSException.DDS_RETCODE_ALREADY_DELETED)

    with pytest.raises(NotConnected, match="reading a topic failed"):
        dds.Subscription(Broken(), depth=1).take()


def test_queues_are_as_long_as_those_of_ros_unless_told_otherwise(node: dds.Node) -> None:
    """ROS keeps the last ten; a latched topic the last one, for whoever comes late."""
    publisher, latched = node.publisher("/a", rt.String), node.publisher("/b", rt.String, True)
    ordinary = node.subscription("/a", rt.String)
    long = node.subscription("/a", rt.String, depth=30, reliable=True)
    ends = (publisher._writer, latched._writer, ordinary._reader, long._reader)
    found = [(end.get_qos()[Policy.History], end.get_qos()[Policy.Durability]) for end in ends]
    volatile, last = Policy.Durability.Volatile, Policy.Durability.TransientLocal
    keep = Policy.History.KeepLast
    assert found == [
        (keep(10), volatile),
        (keep(1), last),
        (keep(10), volatile),
        (keep(30), volatile),
    ]
    reliable = [type(end.get_qos()[Policy.Reliability]).__name__ for end in ends]
    assert reliable[0] == reliable[1] == reliable[3] != reliable[2]
    assert (ordinary._depth, long._depth) == (10, 30)


@pytest.mark.parametrize("domain_id", [0, dds.MAX_DOMAIN_ID])
def test_the_first_and_the_last_domain_are_allowed(domain_id: int) -> None:
    dds.check_domain(domain_id)
