"""ROS 2 nodes over native DDS, without a ROS installation. The only file that speaks DDS.

What a ROS 2 peer sees of a `Node` is an ordinary node: mangled topic names, ROS's default quality
of service, type hashes, and an entry in `ros2 node list`. Readers are polled, never called back, so
that a control loop owns its own time. DDS deadlines are not used: no stock ROS publisher offers
one, and a reader that asks for it gets nothing. Watch the age of what arrives instead.
"""

import dataclasses
import ipaddress
import logging
import os
import socket
import sys
import threading
import weakref
from typing import Any, Generic, Self, TypeVar

from cyclonedds.core import DDSException
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

from robo_rl.hardware.bridges.ros_types import (
    TYPE_HASHES,
    Gid,
    NodeEntitiesInfo,
    ParticipantEntitiesInfo,
)
from robo_rl.hardware.errors import HardwareError, NotConnected

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
MAX_DOMAIN_ID = 232
"""Above it, DDS's ports do not fit into 16 bits."""

# Loopback interfaces do not announce multicast, which the discovery of ROS 2 needs. The lease is
# how long a dead peer stays visible.
_CONFIG = """<CycloneDDS><Domain id="any">
<General><Interfaces><NetworkInterface address="{address}" multicast="true"/></Interfaces></General>
<Discovery><LeaseDuration>5 s</LeaseDuration></Discovery>
</Domain></CycloneDDS>"""

_DEPTH = 10
_BLOCK = duration(milliseconds=5)

Message = TypeVar("Message", bound=IdlStruct)


@dataclasses.dataclass(frozen=True)
class Ros2Link:
    """Where on the network the arm is."""

    domain_id: int
    address: str = LOOPBACK
    allow_network: bool = False
    node_name: str = "robo_rl"


def check_domain(domain_id: int) -> None:
    """Raise ValueError for a number that no DDS domain has."""
    if not 0 <= domain_id <= MAX_DOMAIN_ID:
        raise ValueError(f"ROS_DOMAIN_ID must be in [0, {MAX_DOMAIN_ID}], got {domain_id}")


class _AddressedDomain(Domain):
    """A DDS domain that remembers which interface it was opened on."""

    def __init__(self, domain_id: int, address: str) -> None:
        super().__init__(domain_id, _CONFIG.format(address=address))
        self.address = address


_domains: weakref.WeakValueDictionary[int, _AddressedDomain] = weakref.WeakValueDictionary()
_domains_lock = threading.Lock()


class Publisher(Generic[Message]):
    """Writes one topic, reliably and without waiting for anyone."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer
        self.dropped = 0
        """Messages given up because readers that ask for reliability did not keep up."""

    def publish(self, message: Message) -> None:
        """Send to every subscriber there is now."""
        try:
            self._writer.write(message)
        except DDSException as error:
            if error.code != DDSException.DDS_RETCODE_TIMEOUT:
                raise NotConnected(f"publishing failed: {error}") from error
            self.dropped += 1

    def matched(self) -> int:
        """How many subscribers are known."""
        return len(self._writer.get_matched_subscriptions())


class Subscription(Generic[Message]):
    """Reads one topic; keeps the newest messages until they are taken."""

    def __init__(self, reader: Any, depth: int) -> None:
        self._reader = reader
        self._depth = depth

    def take(self) -> list[Message]:
        """Messages since the last call, oldest first."""
        try:
            messages = self._reader.take(N=self._depth)
        except DDSException as error:
            raise NotConnected(f"reading a topic failed: {error}") from error
        # A peer that dies shows up as a sample without data.
        return [message for message in messages if message.sample_info.valid_data]

    def matched(self) -> int:
        """How many publishers are known."""
        return len(self._reader.get_matched_publications())


class Node:
    """A ROS 2 node in a process without ROS.

    `address` is that of the network interface to use. DDS authenticates nobody, so anything but
    loopback is refused unless `allow_network` says that everyone there may move the arm.
    """

    def __init__(
        self,
        name: str,
        domain_id: int,
        address: str = LOOPBACK,
        allow_network: bool = False,
    ) -> None:
        check_domain(domain_id)
        self._loopback = ipaddress.ip_address(address).is_loopback
        if not self._loopback and not allow_network:
            raise ValueError(
                f"Node {name}: refused to open {address}, which is not a loopback address: DDS has "
                "no authentication. Pass allow_network=True if everyone there may move the arm."
            )
        self.name = name
        self.domain_id = domain_id
        self._address = address
        self._participant: Any = None
        self._domain: _AddressedDomain | None = None
        self._writers: list[Any] = []
        self._readers: list[Any] = []
        self._info: Any = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Join the domain and appear in its node list."""
        if self._participant is not None:
            return
        with _domains_lock:
            before = _sockets()
            try:
                self._domain = self._join()
                qos = Qos(Policy.Userdata(b"enclave=/;"))
                self._participant = DomainParticipant(self.domain_id, qos)
            except DDSException as error:
                raise HardwareError(
                    f"Node {self.name}: cannot open DDS domain {self.domain_id} on "
                    f"{self._address}: {error}"
                ) from error
            if self._loopback:
                _keep_on_loopback(_sockets().keys() - before.keys())
        info = ParticipantEntitiesInfo
        topic = Topic(self._participant, "ros_discovery_info", info)
        self._info = DataWriter(self._participant, topic, _writer_qos(info, latched=True))
        self._announce()

    def _join(self) -> _AddressedDomain:
        """The domain of this process: DDS configures each only once."""
        domain = _domains.get(self.domain_id)
        if domain is None:
            domain = _AddressedDomain(self.domain_id, self._address)
            _domains[self.domain_id] = domain
        elif domain.address != self._address:
            raise HardwareError(
                f"Node {self.name}: domain {self.domain_id} is already open on {domain.address} in "
                f"this process, cannot open it on {self._address}"
            )
        return domain

    def close(self) -> None:
        """Leave the domain; peers notice at once. Idempotent."""
        self._writers.clear()
        self._readers.clear()
        self._info = None
        participant, self._participant = self._participant, None
        if participant is not None:
            # Deleting the participant deletes what it owns, also what others still refer to.
            participant.__del__()
        self._domain = None

    def publisher(
        self, topic: str, type_: type[Message], latched: bool = False
    ) -> Publisher[Message]:
        """A publisher with ROS's default quality of service; `latched` also serves latecomers."""
        writer = DataWriter(self._opened(), self._topic(topic, type_), _writer_qos(type_, latched))
        self._writers.append(writer)
        self._announce()
        return Publisher(writer)

    def subscription(
        self, topic: str, type_: type[Message], depth: int = _DEPTH, reliable: bool = False
    ) -> Subscription[Message]:
        """A subscription. Unless `reliable`, it matches every publisher there can be."""
        qos = Qos(
            Policy.Reliability.Reliable(_BLOCK) if reliable else Policy.Reliability.BestEffort,
            Policy.Durability.Volatile,
            Policy.History.KeepLast(depth),
            _type_hash(type_),
        )
        reader: Any = DataReader(self._opened(), self._topic(topic, type_), qos)
        self._readers.append(reader)
        self._announce()
        return Subscription(reader, depth)

    def _opened(self) -> Any:
        if self._participant is None:
            raise NotConnected(f"Node {self.name} is not open")
        return self._participant

    def _topic(self, topic: str, type_: type[IdlStruct]) -> Any:
        return Topic(self._opened(), "rt/" + topic.removeprefix("/"), type_)

    def _announce(self) -> None:
        node = NodeEntitiesInfo(
            "/",
            self.name,
            [Gid(reader.guid.bytes) for reader in self._readers],
            [Gid(writer.guid.bytes) for writer in self._writers],
        )
        self._info.write(ParticipantEntitiesInfo(Gid(self._opened().guid.bytes), [node]))


def _type_hash(type_: type[IdlStruct]) -> Any:
    return Policy.Userdata(f"typehash={TYPE_HASHES[type_]};".encode())


def _writer_qos(type_: type[IdlStruct], latched: bool) -> Any:
    return Qos(
        Policy.Reliability.Reliable(_BLOCK),
        Policy.Durability.TransientLocal if latched else Policy.Durability.Volatile,
        Policy.History.KeepLast(1 if latched else _DEPTH),
        _type_hash(type_),
    )


def _sockets() -> dict[str, int]:
    """Sockets of this process, inode to descriptor. Empty where there is no procfs."""
    found: dict[str, int] = {}
    if not sys.platform.startswith("linux"):
        return found
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found[target] = int(name)
    return found


def _keep_on_loopback(inodes: set[str]) -> None:
    """Tie sockets to the loopback device.

    Cyclone listens on 0.0.0.0 whatever interface it is given, so that a packet from outside with
    the right port number would be read.
    """
    descriptors = _sockets()
    for inode in inodes:
        with socket.socket(fileno=os.dup(descriptors[inode])) as duplicate:
            if duplicate.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            try:
                duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            except OSError as error:
                log.warning("could not tie a DDS socket to the loopback device: %s", error)
