"""What the workers of one daemon ask each other: their metrics, because a reader of metrics reaches one of them only.

Each has a mailbox, a pair of sockets that is there before the workers are; who asks puts one end of a fresh connection
into it, and gets the answer on the other end. Nothing of this has a name in the file system.
"""

import asyncio
import logging
import secrets
import socket
from typing import Final

from aiproxyd.tasks import spawn
from aiproxyd.telemetry.metrics import Family, Metrics, decode, encode, merge, read_process, render

ANSWER_WITHIN_S: Final = 0.5
"""How long a worker may take to answer; one that is busy for longer is left out."""
MAILBOX_BYTES: Final = 8192
"""Room for some twenty requests; in the mailbox of one that does not look into it, they wait for its successor."""
FULL_FOR_S: Final = 0.02
"""When to try again where a mailbox is full."""

_log: Final = logging.getLogger(__name__)


class Siblings:
    """All workers of one daemon as one of them sees them."""

    def __init__(self, token: str, boxes: list[tuple[socket.socket, socket.socket]], number: int) -> None:
        self.token = token
        """Names the daemon, in all its workers."""
        self._boxes = boxes
        """The ends to send to, and to receive from."""
        self._number = number
        self._answers: set[asyncio.Task[None]] = set()

    @classmethod
    def make(cls, count: int) -> "Siblings":
        """Return the workers as their parent sees them, to be called before there are any.

        Raises:
            OSError: there are too many for the limits of the process.
        """
        boxes = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(count)]
        for box in boxes:
            box[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAILBOX_BYTES)
            for end in box:
                end.setblocking(False)
        return cls(secrets.token_hex(8), boxes, 0)

    def seen_by(self, number: int) -> "Siblings":
        """Return the same as the worker *number*, from 1, sees them."""
        return Siblings(self.token, self._boxes, number)

    def start_answering(self, metrics: Metrics) -> None:
        """Answer, from now on, with *metrics*."""
        inbox = self._boxes[self._number - 1][1]
        asyncio.get_running_loop().add_reader(inbox, self._take, inbox, metrics)

    async def stop_answering(self) -> None:
        """Answer no more, not even those who have asked."""
        asyncio.get_running_loop().remove_reader(self._boxes[self._number - 1][1])
        for answer in self._answers:
            answer.cancel()
        await asyncio.gather(*self._answers, return_exceptions=True)

    def close(self) -> None:
        """Close the mailboxes, as the end of the process does."""
        for box in self._boxes:
            for end in box:
                end.close()

    async def measure(self, metrics: Metrics) -> bytes:
        """Return the metrics of all workers as text, *metrics* being our own; those that do not answer are left out."""
        own = metrics.read()
        numbers = [number for number in range(1, len(self._boxes) + 1) if number != self._number]
        answers = await asyncio.gather(*map(self._ask, numbers))
        told: dict[int, list[Family] | None] = {**dict(zip(numbers, answers, strict=True)), self._number: own}
        return await asyncio.to_thread(self._render, told)

    def _render(self, told: dict[int, list[Family] | None]) -> bytes:
        own = told[self._number] or []
        return render(merge({**dict(sorted(told.items())), self._number: [*read_process(), *own]}))

    async def _ask(self, number: int) -> list[Family] | None:
        """Return the metrics of the worker *number*; None where it does not answer in time."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        writer = None
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                reader, writer = await asyncio.open_unix_connection(sock=ours)
                with theirs:
                    while not self._put(number, theirs):  # noqa: ASYNC110  # there is no event to wait for
                        await asyncio.sleep(FULL_FOR_S)
                answer = await reader.read()
        except OSError:
            return None
        finally:
            theirs.close()
            (ours if writer is None else writer).close()
        return decode(answer) if answer else None  # nothing: it has ended meanwhile, or failed

    def _put(self, number: int, connection: socket.socket) -> bool:
        """Put *connection* into the mailbox of the worker *number*; tell whether there was room."""
        try:
            socket.send_fds(self._boxes[number - 1][0], [b"?"], [connection.fileno()])
        except BlockingIOError:
            return False
        return True

    def _take(self, inbox: socket.socket, metrics: Metrics) -> None:
        try:
            _, descriptors, _, _ = socket.recv_fds(inbox, 1, 1)
        except BlockingIOError:
            return
        for descriptor in descriptors:
            answer = spawn(_answer(socket.socket(fileno=descriptor), metrics), "answer to a sibling")
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)


async def _answer(connection: socket.socket, metrics: Metrics) -> None:
    connection.setblocking(False)
    _, writer = await asyncio.open_unix_connection(sock=connection)
    try:
        own = metrics.read()
        async with asyncio.timeout(ANSWER_WITHIN_S):
            writer.write(await asyncio.to_thread(lambda: encode([*read_process(), *own])))
            await writer.drain()
            writer.close()
            await writer.wait_closed()
    except (TimeoutError, ConnectionError):
        _log.debug("a sibling asked for metrics, and did not wait for them")
    finally:
        writer.transport.abort()
