"""The faults of upstreams, one by one. Each is played on a raw socket."""

import asyncio
from typing import Final, NamedTuple

from tests.faults.answers import FORMATS, TOO_LONG, write_band_error, write_error
from tests.faults.upstream import Exchange, Play

SHORT_S: Final = 0.8
"""The time limit that a silence runs into; long enough for a good answer while many calls run in one process."""
DRIP_S: Final = 0.002
DRIP_BYTES: Final = 1000
"""How many bytes drip; the rest comes at once."""
KINDS: Final = {"whole": "whole answers", "stream": "streams", "array": "streams in JSON"}
"""What is asked for; the array is the stream that Gemini's callers get who ask for no events."""
OPENAI: Final = ("openai-chat", "openai-responses")


class Fault(NamedTuple):
    """One way to fail."""

    name: str
    play: Play | None
    """None: connections are refused."""
    kinds: tuple[str, ...] = tuple(KINDS)
    """Whether whole answers fail so, streams, or both."""
    formats: tuple[str, ...] = FORMATS
    """Formats of upstreams that can fail so."""
    line: str = ""
    """A line for the upstream's section."""
    is_final: bool = False
    """It is about the request: nobody else may be asked."""
    is_late: bool = False
    """It comes when output has begun: nobody else may be asked."""
    is_harmless: bool = False
    """It is no reason to fail."""


async def _break(exchange: Exchange) -> None:
    await exchange.reset()


async def _break_in_head(exchange: Exchange) -> None:
    await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: appl")
    await exchange.reset()


async def _hang(exchange: Exchange) -> None:
    await exchange.hang()


async def _hang_behind_head(exchange: Exchange) -> None:
    await exchange.open()
    await exchange.hang()


async def _begin(exchange: Exchange) -> None:
    """Send the beginning of a good answer, words included."""
    await exchange.open()
    if exchange.is_stream:
        wire = exchange.wire
        await exchange.write_chunks(*wire.events[: wire.first])
        await asyncio.sleep(0.02)  # else what follows could come with it
    else:
        await exchange.write_chunks(exchange.whole[: len(exchange.whole) // 2])


async def _begin_and_hang(exchange: Exchange) -> None:
    await _begin(exchange)
    await exchange.hang()


async def _begin_and_cut(exchange: Exchange) -> None:
    await _begin(exchange)
    await exchange.cut()


async def _begin_and_cut_in_event(exchange: Exchange) -> None:
    await _begin(exchange)
    wire = exchange.wire
    await exchange.write_chunks(wire.events[wire.first][:-10])
    await exchange.cut()


async def _begin_and_reset(exchange: Exchange) -> None:
    await _begin(exchange)
    await exchange.reset()


async def _begin_and_end(exchange: Exchange) -> None:
    """End in good order, where more should come."""
    await _begin(exchange)
    await exchange.end()


async def _leave_out_the_end(exchange: Exchange) -> None:
    wire = exchange.wire
    await exchange.open()
    await exchange.write_chunks(*wire.events[: wire.last])
    await exchange.end()


async def _cut_without_length(exchange: Exchange) -> None:
    """Close the connection in the middle of a body that only its end delimits."""
    await exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n")
    await exchange.write(exchange.whole[: len(exchange.whole) // 2])
    await exchange.cut()


async def _drip(exchange: Exchange) -> None:
    await exchange.open()
    body = b"".join(exchange.wire.events) if exchange.is_stream else exchange.whole
    for byte in body[:DRIP_BYTES]:
        await exchange.write_chunks(bytes((byte,)))
        await asyncio.sleep(DRIP_S)
    if rest := body[DRIP_BYTES:]:
        await exchange.write_chunks(rest)
    await exchange.end()


async def _babble(exchange: Exchange) -> None:
    await exchange.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
    await exchange.cut()


async def _send_page(exchange: Exchange) -> None:
    await exchange.reply(b"<html><body>Please log in.</body></html>", content_type="text/html")


async def _send_error_with_200(exchange: Exchange) -> None:
    await exchange.reply(write_error(exchange.fmt, 503, "busy", "server_error"))


async def _send_whole(exchange: Exchange) -> None:
    await exchange.reply(exchange.whole)


async def _send_nothing(exchange: Exchange) -> None:
    await exchange.reply(b"", content_type=exchange.content_type)


async def _send_error_first(exchange: Exchange) -> None:
    await exchange.open()
    error = write_band_error(exchange.fmt, 0, is_array=exchange.is_array)
    await exchange.write_chunks(error[:1])
    await asyncio.sleep(0.02)
    await exchange.write_chunks(error[1:])
    await exchange.end()


async def _send_error_later(exchange: Exchange) -> None:
    await _begin(exchange)
    await exchange.write_chunks(write_band_error(exchange.fmt, exchange.wire.first, is_array=exchange.is_array))
    await exchange.end()


async def _answer_in_advance(exchange: Exchange) -> None:
    """Send interim answers before the one that counts."""
    await exchange.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    await exchange.answer_well()


def _refuse(status: int, message: str = "no", code: str | None = None, **headers: str) -> Play:
    async def play(exchange: Exchange) -> None:
        await exchange.reply(write_error(exchange.fmt, status, message, code), status, **headers)

    return play


async def _tell_delay(exchange: Exchange) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.2s"}
    await exchange.reply(write_error(exchange.fmt, 429, "slow down", details=[info]), 429)


async def _refuse_key(exchange: Exchange) -> None:
    body = write_error(exchange.fmt, 401, "no such key", "invalid_api_key")
    await exchange.reply(body, 401)


async def _say_too_long(exchange: Exchange) -> None:
    body = write_error(exchange.fmt, 400, TOO_LONG[exchange.fmt], "context_length_exceeded")
    await exchange.reply(body, 400)


async def _send_bad_gateway(exchange: Exchange) -> None:
    await exchange.reply(b"<html>502 Bad Gateway</html>", 502, "text/html")


FIRST_EVENT: Final = f"first-event-timeout = {SHORT_S}"
IDLE: Final = f"idle-timeout = {SHORT_S}"
WHOLE: Final = ("whole",)
STREAM: Final = ("stream", "array")

FAULTS: Final = (
    Fault("refuses connections", None),
    Fault("resets the connection when it has the request", _break),
    Fault("resets the connection within the headers", _break_in_head),
    Fault("says nothing", _hang, line=FIRST_EVENT),
    Fault("sends headers, then nothing", _hang_behind_head, line=FIRST_EVENT),
    Fault("falls silent within the body", _begin_and_hang, WHOLE, line=IDLE),
    Fault("closes the connection within the body", _begin_and_cut, WHOLE),
    Fault("closes it within a body without a length", _cut_without_length, WHOLE),
    Fault("resets the connection within the body", _begin_and_reset, WHOLE),
    Fault("ends the body early", _begin_and_end, WHOLE),
    Fault("falls silent after the first words", _begin_and_hang, STREAM, line=IDLE, is_late=True),
    Fault("closes the connection after the first words", _begin_and_cut, STREAM, is_late=True),
    Fault("closes the connection within an event", _begin_and_cut_in_event, STREAM, is_late=True),
    Fault("resets the connection after the first words", _begin_and_reset, STREAM, is_late=True),
    Fault("ends the stream after the first words", _begin_and_end, STREAM, is_late=True),
    Fault("leaves out the stream's end", _leave_out_the_end, STREAM, is_late=True),
    Fault("answers 429", _refuse(429, "slow down")),
    Fault("answers 429, retry-after: 0.2", _refuse(429, "slow down", retry_after="0.2")),
    Fault("answers 429, retry-after-ms: 200", _refuse(429, "slow down", retry_after_ms="200")),
    Fault("answers 429, RetryInfo of 0.2 s", _tell_delay, formats=("gemini",)),
    Fault("answers 429, retry-after: 60", _refuse(429, "slow down", retry_after="60")),
    Fault("answers 429, insufficient_quota", _refuse(429, "empty", "insufficient_quota"), formats=OPENAI),
    Fault("answers 500", _refuse(500)),
    Fault("answers 502, with a page of HTML", _send_bad_gateway),
    Fault("answers 503", _refuse(503)),
    Fault("answers 529", _refuse(529)),
    Fault("answers 401", _refuse_key),
    Fault("answers 402", _refuse(402)),
    Fault("answers 403", _refuse(403)),
    Fault("answers 404: no such model", _refuse(404, "no such model", "model_not_found")),
    Fault("answers 400", _refuse(400), is_final=True),
    Fault("answers 400: the conversation is too long", _say_too_long),
    Fault("answers 413", _refuse(413), is_final=True),
    Fault("answers 422", _refuse(422), is_final=True),
    Fault("does not speak HTTP", _babble),
    Fault("answers 200 with a page of HTML", _send_page),
    Fault("answers 200 with an error", _send_error_with_200),
    Fault("answers 200 with an empty body", _send_nothing),
    Fault("answers whole where a stream was asked for", _send_whole, STREAM),
    Fault("begins the stream with an error", _send_error_first, STREAM),
    Fault("reports an error after the first words", _send_error_later, STREAM, is_late=True),
    Fault("sends a byte every 2 ms", _drip, is_harmless=True),
    Fault("sends interim answers first", _answer_in_advance, is_harmless=True),
)
