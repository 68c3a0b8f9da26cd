"""Workers on many machines: actors of Ray, which starts them, places them and sees them die.

What runs in an actor is the same worker. Ray carries messages, as bytes; it is asked for nothing
else.
"""

from __future__ import annotations

import logging
import pickle
import queue
import socket
import threading
from collections.abc import Sequence
from typing import Any

from musiva.comm import Meter
from musiva.core.errors import InvalidInput, Unavailable
from musiva.engine.fleet.launcher import Hold, pair_of_queues
from musiva.engine.fleet.wire import Channel
from musiva.engine.fleet.worker import Order, Seat, attend_to, work

__all__ = ["RayCluster"]

log = logging.getLogger(__name__)
ALLOWED = "ray for a cluster that is there or else one of this machine, or ray://HOST:PORT"
# Seconds that an actor waits for something to tell before it says that there is nothing.
PATIENCE = 5.0
# Seconds that a cluster may take to find room for a worker.
PLACED = 60.0


class RayCluster:
    """Starts workers in a cluster of Ray. Close it when they have ended; a Ray that was started
    here ends then.
    """

    def __init__(self, address: str) -> None:
        """Raises InvalidInput for an address, Unavailable where Ray is not installed or not
        there.
        """
        if address != "ray" and not address.startswith("ray://"):
            raise InvalidInput("cluster", address, ALLOWED)
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise Unavailable(f"Ray is not installed ({error}): pip install musiva[ray]") from error
        self._ray: Any = ray
        self._address = address
        self._started = not ray.is_initialized()
        if self._started:
            self._connect(address)

    @property
    def home(self) -> str:
        """An address of this machine that the workers reach."""
        if self._address == "ray":
            return self._ray.util.get_node_ip_address()
        # This process is no node of the cluster: the address that it reaches it from.
        host, _, port = self._address.removeprefix("ray://").rpartition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
            way.connect((host, int(port)))
            return way.getsockname()[0]

    def close(self) -> None:
        if self._started:
            self._ray.shutdown()

    def __call__(self, number: int, order: Order) -> Hold:
        """Raises Unavailable where the cluster has no room."""
        each = {"CPU": float(order.threads or 1)}
        if order.devices[0] != "cpu" and self._ray.cluster_resources().get("GPU"):
            each["GPU"] = 1.0
        return RayHold(self._ray, number, order, each)

    def _connect(self, address: str) -> None:
        options = {"logging_level": logging.ERROR, "log_to_driver": False}
        try:
            if address == "ray":
                try:
                    self._ray.init(address="auto", **options)
                except ConnectionError:
                    self._ray.init(include_dashboard=False, **options)
            else:
                self._ray.init(address, **options)
        except Exception as error:
            raise Unavailable(f"cluster: {address} cannot be reached: {error}") from error


class Rank:
    """What runs in an actor: a rank of a worker, in a thread, and queues to it. `put` and `take`
    are called in a thread each of the actor, so that messages keep their order.
    """

    def __init__(self) -> None:
        self._end, self._theirs = pair_of_queues()

    def address(self) -> str:
        """Where the ranks of a worker can meet whose first one this is."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = free.getsockname()[1]
        import ray  # pyright: ignore[reportMissingImports]

        return f"tcp://{ray.util.get_node_ip_address()}:{port}"

    def begin(self, order: Order, rank: int, meeting: str, others: Sequence[Any]) -> None:
        """others: actors of the other ranks, of the first one."""
        import ray  # pyright: ignore[reportMissingImports]

        order = order.at(ray.util.get_node_ip_address())
        if rank:
            body = (attend_to, order, Seat(rank, meeting, [self._theirs]))
        else:
            seat = Seat(0, meeting, [ActorChannel(one) for one in others]) if others else None
            body = (work, self._theirs, order, seat)
        threading.Thread(target=self._run, args=body, daemon=True).start()

    def _run(self, body: Any, *arguments: object) -> None:
        try:
            body(*arguments)
        except Exception:
            log.exception("a rank has ended")
        finally:
            self._theirs.close()

    def put(self, message: bytes) -> None:
        """From outside."""
        self._end.send(pickle.loads(message))

    def take(self) -> list[bytes] | None:
        """What it has to tell, after a while nothing; None once it has ended."""
        told = self._end.drain(PATIENCE)
        return None if told is None else [pickle.dumps(message) for message in told]


class ActorChannel:
    """To a rank in an actor, from where its handle is. Nothing comes back but that it is gone."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.meter = Meter()

    def send(self, message: object) -> None:
        packed = pickle.dumps(message)
        self._actor.put.options(concurrency_group="in").remote(packed)
        self.meter.saw(sent=len(packed))

    def receive(self) -> object:
        raise EOFError("nothing comes from a follower")

    def close(self) -> None:
        """It ends with its worker."""


class RayHold:
    """The actors of a worker, and what the first one says."""

    def __init__(self, ray: Any, number: int, order: Order, each: dict[str, float]) -> None:
        self._ray = ray
        self._group = ray.util.placement_group([each] * order.degree, strategy="PACK")
        ready, _ = ray.wait([self._group.ready()], timeout=PLACED)
        if not ready:
            ray.util.remove_placement_group(self._group)
            wanted = f"{order.degree} x {each}"
            raise Unavailable(f"the cluster has no room for worker {number}, which takes {wanted}")
        self.pid, self._ended = None, False
        self._actors: list[Any] = []
        try:
            self._begin(order, each)
        except Exception as error:
            self.kill()
            raise Unavailable(f"worker {number} does not begin: {error}") from error
        self.channel: Channel = RayChannel(ray, self._actors[0])

    def _begin(self, order: Order, each: dict[str, float]) -> None:
        """Its actors, and what they do. Raises what Ray raises."""
        ray = self._ray
        actor = ray.remote(concurrency_groups={"in": 1, "out": 1})(Rank)
        for rank in range(order.degree):
            strategy = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(
                placement_group=self._group, placement_group_bundle_index=rank
            )
            options = {"num_cpus": each["CPU"], "num_gpus": each.get("GPU", 0)}
            self._actors.append(actor.options(**options, scheduling_strategy=strategy).remote())
        first, *others = self._actors
        # Its machine may be gone since there was room on it.
        meeting = ray.get(first.address.remote(), timeout=PLACED)
        for rank, one in enumerate(self._actors):
            one.begin.remote(order, rank, meeting, others if rank == 0 else [])

    @property
    def whole(self) -> bool:
        return not self._ended

    def kill(self) -> None:
        if not self._ended:
            self._ended = True
            try:
                for actor in self._actors:
                    self._ray.kill(actor, no_restart=True)
            finally:
                self._ray.util.remove_placement_group(self._group)

    def join(self, timeout: float | None) -> bool:
        return self.channel.ended.wait(timeout)  # type: ignore[attr-defined]


class RayChannel:
    """To the first rank of a worker. A thread of its caller waits for what it says."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self._told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.ended = threading.Event()
        self.meter = Meter()

    def send(self, message: object) -> None:
        if self.ended.is_set():
            raise OSError("the worker is gone")
        packed = pickle.dumps(message)
        self._actor.put.options(concurrency_group="in").remote(packed)
        self.meter.saw(sent=len(packed))

    def receive(self) -> object:
        while self._told.empty():
            try:
                told = self._ray.get(self._actor.take.options(concurrency_group="out").remote())
            except self._ray.exceptions.RayError as error:
                self.ended.set()
                raise EOFError(str(error)) from error
            if told is None:
                self.ended.set()
                raise EOFError("the worker has ended")
            for message in told:
                self._told.put(message)
        packed = self._told.get()
        self.meter.saw(received=len(packed))
        return pickle.loads(packed)

    def close(self) -> None:
        """It ends with its actor."""
