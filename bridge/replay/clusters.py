"""Which messages belong together: those of households that share a user, or a device that moved (M1).

Rules:
- Only messages that lead to a building count.
- Of each message its id and the number of its building are kept, 12 bytes; of each building, user and device a name.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bridge.core.messages import Inbound, Tombstone, Unreadable
from bridge.core.routing import Place, device_of, home_of, place
from bridge.core.rules import Rules
from bridge.core.vocabulary import DeviceKey
from bridge.replay.keeper import Keeper
from bridge.replay.world import Directory
from bridge.store.port import Home, Pending
from bridge.worker.step import read

PAGE: Final = 100
"""Messages read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Buildings that have to be remade together."""

    buildings: Sequence[str]
    users: frozenset[str]  # as MOOST and the device cloud spell them
    messages: Sequence[int]  # ids, in order of acceptance


class Clusters:
    """Finds out who belongs together, message by message."""

    def __init__(self, rules: Rules, directory: Directory) -> None:
        """Begin with nothing."""
        self._rules = rules
        self._directory = directory
        self._homes: dict[DeviceKey, Home] = {}
        self._nodes: dict[tuple[str, str], int] = {}  # ("building" or "user", name) -> its node
        self._parents = array("l")
        self._ids = array("q")
        self._at = array("l")  # node of the building, for each of `_ids`

    def unknown(self, message: Inbound) -> bool:
        """Tell whether only the store can say where a message belongs."""
        return message.user is None and device_of(message) not in self._homes

    def live(self, device: DeviceKey, home: Home) -> None:
        """Learn where a device lives of which no message says so."""
        self._homes.setdefault(self._rules.present(device), home)

    def add(self, message: Inbound) -> None:
        """Note where a message belongs."""
        device = device_of(message)
        home = self._homes.get(device)
        rows = self._directory.get(message.user, ()) if message.user is not None else ()
        owner = self._directory.get(home.user, ()) if home is not None else ()
        where = place(message, rows, home_of(home.building, owner) if home is not None else None, self._rules)
        if not isinstance(where, Place):
            return
        node = self._node("building", where.building)
        self._ids.append(message.number)
        self._at.append(node)
        if message.raw_user is not None:
            self._join(node, self._node("user", message.raw_user))
        if home is not None and home.building != where.building:
            self._join(node, self._node("building", home.building))
        user = message.user or (home.user if home is not None else "")
        self._homes[device] = Home(building=where.building, user=user)

    def knows_user(self, user: str) -> bool:
        """Tell whether any message was of a user."""
        return ("user", user) in self._nodes

    def found(self, wanted: str | None) -> Iterator[Cluster]:
        """Yield every cluster, or only the one of a building."""
        names: dict[int, list[str]] = {}
        users: dict[int, set[str]] = {}
        for (what, name), node in self._nodes.items():
            root = self._root(node)
            if what == "building":
                names.setdefault(root, []).append(name)
            else:
                users.setdefault(root, set()).add(name)
        chosen = {root for root, buildings in names.items() if wanted is None or wanted in buildings}
        ids: dict[int, array[int]] = {root: array("q") for root in chosen}
        for number, node in zip(self._ids, self._at, strict=True):
            root = self._root(node)
            if root in chosen:
                ids[root].append(number)
        for root in sorted(chosen):
            yield Cluster(buildings=sorted(names[root]), users=frozenset(users.get(root, ())), messages=ids.pop(root))

    def _node(self, what: str, name: str) -> int:
        node = self._nodes.setdefault((what, name), len(self._parents))
        if node == len(self._parents):
            self._parents.append(node)
        return node

    def _root(self, node: int) -> int:
        parents = self._parents
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def _join(self, one: int, other: int) -> None:
        self._parents[self._root(other)] = self._root(one)


async def sorted_out(
    keeper: Keeper, rules: Rules, directory: Directory, processed: int, advance: Callable[[float], None]
) -> Clusters:
    """Read every settled message up to an id once, and return who belongs together; `advance` is told of each page."""
    clusters = Clusters(rules, directory)
    after = 0
    while page := await keeper.settled(after, PAGE):
        after = page[-1].id
        await _add(keeper, rules, clusters, [row for row in page if row.id <= processed])
        advance(len(page))
        if after >= processed:
            break
    return clusters


async def _add(keeper: Keeper, rules: Rules, clusters: Clusters, rows: Sequence[Pending]) -> None:
    """Note where the messages of a page belong."""
    read_ = [read(row, rules) for row in rows]
    messages = [message for message in read_ if not isinstance(message, Tombstone | Unreadable)]
    if lost := {device_of(message) for message in messages if clusters.unknown(message)}:
        lost |= {old for device in lost for old in rules.former(device)}
        for device, home in (await keeper.load((), sorted(lost), ())).homes.items():
            clusters.live(device, home)
    for message in messages:
        clusters.add(message)


async def sorted_out_for(
    keeper: Keeper, rules: Rules, directory: Directory, processed: int, building: str, advance: Callable[[float], None]
) -> Clusters:
    """Read only the messages of the users that may have to do with a building, and return who belongs together."""
    users: set[str] = set()
    clusters = Clusters(rules, directory)
    while more := await _users_of(keeper, rules, directory, next(clusters.found(building), None), building) - users:
        users |= more
        clusters = Clusters(rules, directory)
        ids = await keeper.of_users(users)
        for start in range(0, len(ids), PAGE):
            rows = await keeper.messages([number for number in ids[start : start + PAGE] if number <= processed])
            await _add(keeper, rules, clusters, rows)
            advance(len(rows))
    return clusters


async def _users_of(
    keeper: Keeper, rules: Rules, directory: Directory, cluster: Cluster | None, building: str
) -> set[str]:
    """Return the users of a cluster, by its messages, its states and the directory."""
    buildings = {building, *(cluster.buildings if cluster is not None else ())}
    users = {row.user for rows in directory.values() for row in rows if row.building in buildings}
    named = set(cluster.users) if cluster is not None else set()
    for name in buildings:
        found = await keeper.building(name)
        if found is not None:
            users |= {device.user for device in (*found.state.devices.values(), *found.state.departed)}
            named |= set(found.state.users)
    prefixes = {"", *(one.user_prefix for one in rules.subscriptions.values())}
    return users | {prefix + user for prefix in prefixes for user in named}
