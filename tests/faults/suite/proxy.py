"""A TCP proxy in front of the server, one port a client, that can be made to misbehave at run time.

What is held is delivered once it is let go, however late, and a client's close comes after what it
said before: as the network does it.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Literal

Way = Literal["requests", "answers"]
WAYS: tuple[Way, Way] = ("requests", "answers")
_CHUNK = 65536


class Network:
    """The loop that all links of a trial run in, in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.links: dict[str, Link] = {}

    def link(self, name: str, target: str) -> Link:
        """Open a port that leads to a Unix socket."""
        self.links[name] = Link(self, target)
        self.links[name].accept()
        return self.links[name]

    def run(self, act: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(act, self.loop).result(10)

    def close(self) -> None:
        for link in self.links.values():
            link.refuse()
            link.reset()
        self.loop.set_exception_handler(lambda *_: None)  # of what is cancelled in the middle
        self.run(self._settle())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _settle(self) -> None:
        others = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Link:
    """What one client reaches the server by. Methods may be called from any thread.

    Attributes:
        target: Path of the server's socket; new connections go there.
        delay_s, jitter_s: How much later everything arrives, in each direction, in order.
        reset_share: Of the chunks that pass, how many reset their connection instead.
    """

    def __init__(self, network: Network, target: str) -> None:
        self._network = network
        self.target = target
        self.delay_s = self.jitter_s = self.reset_share = 0.0
        self._flows = {way: asyncio.Event() for way in WAYS}
        self._pairs: set[_Pair] = set()
        self._server: asyncio.Server | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.let_go()

    def dsn(self, like: str) -> str:
        """Give the address by which a client comes this way."""
        return f"{like}@127.0.0.1:{self.port}/postgres?sslmode=disable&gssencmode=disable"

    def accept(self) -> None:
        """Take connections (again)."""
        self._network.run(self._accept())

    async def _accept(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, reuse_address=True
            )

    def refuse(self) -> None:
        """Refuse new connections; those that are there stay."""
        self._network.run(self._refuse())

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def reset(self) -> None:
        """Reset all connections that are there."""
        self._call(lambda: [pair.abort() for pair in list(self._pairs)])

    def freeze(self) -> None:
        """Let nothing pass any more on connections that listen; new ones work, and others."""
        self._call(lambda: [pair.flow.clear() for pair in self._pairs if pair.listens])

    def hold(self, *ways: Way) -> None:
        """Let nothing pass, both ways or one, until `let_go`."""
        self._call(lambda: [self._flows[way].clear() for way in ways or WAYS])

    def let_go(self) -> None:
        self._call(lambda: [flow.set() for flow in self._flows.values()])

    def _call(self, act: Callable[[], Any]) -> None:
        done = threading.Event()

        def run() -> None:
            act()
            done.set()

        self._network.loop.call_soon_threadsafe(run)
        done.wait(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows["requests"].wait()
        try:
            far = await asyncio.open_unix_connection(self.target)
        except OSError:  # nobody there: accepted, and reset, as a balancer does it
            _abort(writer)
            return
        pair = _Pair(writer, far[1])
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pump("requests", reader, far[1], pair),
                self._pump("answers", far[0], writer, pair),
            )
        except OSError:
            pass
        finally:
            self._pairs.discard(pair)
            pair.abort()

    async def _pump(
        self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter, pair: _Pair
    ) -> None:
        due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        writing = asyncio.ensure_future(self._write(way, due, sink, pair))
        try:
            while True:
                try:
                    data = await source.read(_CHUNK)
                except OSError:
                    data = b""
                late_s = self.delay_s and max(
                    0.0, self.delay_s + random.uniform(-self.jitter_s, self.jitter_s)
                )
                pair.listens = pair.listens or b"listen " in data.lower()
                due.put_nowait((loop.time() + late_s, data))
                if not data:
                    break
            await writing
        finally:
            writing.cancel()

    async def _write(
        self, way: Way, due: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter,
        pair: _Pair,
    ) -> None:  # fmt: skip
        loop = asyncio.get_running_loop()
        while True:
            at, data = await due.get()
            if (wait_s := at - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await self._flows[way].wait()
            await pair.flow.wait()
            if self.reset_share and random.random() < self.reset_share:
                pair.abort()
                return
            if not data:
                with suppress(OSError):
                    sink.write_eof()
                if way == "answers":  # the server has closed
                    pair.abort()
                return
            sink.write(data)
            await sink.drain()


class _Pair:
    """The two ends of a connection."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self._ends = (near, far)
        self.listens = False
        self.flow = asyncio.Event()
        self.flow.set()

    def abort(self) -> None:
        for writer in self._ends:
            _abort(writer)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset, not with a goodbye."""
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_INET:
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
