"""The daemon as a process of its own: start, signals, sockets."""

import asyncio
import signal
import socket
import time
from pathlib import Path

import aiohttp
import pytest

from tests.commands.conftest import Daemons
from tests.support import Received, Reply, Upstream, upstream_section

BEGINNING = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
REST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
CHAT = b'{"model":"demo","messages":[{"role":"user","content":"secret words"}]}'


async def test_the_demo_answers_and_a_signal_ends_it_with_status_0(
    daemon: Daemons, http: aiohttp.ClientSession
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        running = await daemon("--demo", "--port", "0")
        await running.wait_until_ready()

        async with http.post(f"{running.url}/v1/chat/completions", data=CHAT) as response:
            assert response.status == 200
        running.process.send_signal(number)
        status, log = await running.end()

        assert status == 0
        assert "POST /v1/chat/completions model=demo upstream=demo status=200" in log
        assert "secret words" not in log
        assert "Traceback" not in log


async def test_sigterm_lets_a_running_stream_finish_and_accepts_nothing_new(
    daemon: Daemons, upstream: Upstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    upstream.script(Reply(chunks=[BEGINNING] * 10 + [REST], gap_s=0.05, content_type="text/event-stream"))
    config = tmp_path / "config.ini"
    config.write_text(upstream_section(upstream, "openai"))
    running = await daemon("--config", str(config), "--port", "0")
    await running.wait_until_ready()

    async with http.post(f"{running.url}/v1/chat/completions", data=b'{"model":"m","stream":true}') as response:
        body = await response.content.readany()
        running.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        with pytest.raises(aiohttp.ClientConnectionError):
            async with aiohttp.ClientSession() as other, other.get(f"{running.url}/health"):
                pass
        body += await response.content.read()

    assert body == BEGINNING * 10 + REST
    assert (await running.end())[0] == 0


async def test_answers_that_outlast_the_shutdown_timeout_end_with_an_error(
    daemon: Daemons, upstream: Upstream, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    def respond(received: Received) -> Reply:
        if b"stream" in received.body:
            return Reply(chunks=[BEGINNING] * 1000, gap_s=0.05, content_type="text/event-stream")
        if "files" in received.target:
            return Reply(chunks=[b"x"] * 1000, gap_s=0.05, content_type="application/octet-stream")
        return Reply(wait_s=30)

    async def call(path: str, body: bytes) -> tuple[int, bytes]:
        async with http.post(f"{running.url}{path}", data=body) as response:
            return response.status, await response.read()

    upstream.respond(respond)
    config = tmp_path / "config.ini"
    config.write_text(upstream_section(upstream, "openai") + "[aiproxyd]\nshutdown-timeout = 0.3\n")
    running = await daemon("--config", str(config), "--port", "0")
    await running.wait_until_ready()

    stream = asyncio.ensure_future(call("/v1/chat/completions", b'{"model":"m","stream":true}'))
    whole = asyncio.ensure_future(call("/v1/chat/completions", b'{"model":"m"}'))
    download = asyncio.ensure_future(call("/v1/files", b""))
    await asyncio.sleep(0.3)
    assert len(upstream.received) == 3
    started = time.monotonic()
    running.process.send_signal(signal.SIGTERM)
    status, log = await running.end()

    assert status == 0
    assert time.monotonic() - started < 2
    assert (await stream)[1].startswith(BEGINNING)
    assert b'"shutting_down"' in (await stream)[1].removeprefix(BEGINNING * 2)
    assert (await whole)[0] == 503
    assert b'"shutting_down"' in (await whole)[1]
    with pytest.raises(aiohttp.ClientPayloadError):
        await download
    assert "status=499" not in log
    assert "Traceback" not in log


async def test_a_unix_socket_serves_its_group_and_is_removed_in_the_end(daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "s"
    running = await daemon("--demo", "--unix-socket", str(path))
    await running.wait_until_ready()

    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.post("http://localhost/v1/chat/completions", data=CHAT) as response,
    ):
        assert response.status == 200
    mode = path.stat().st_mode & 0o777
    running.process.terminate()

    assert (await running.end())[0] == 0
    assert mode == 0o660
    assert not path.exists()


async def test_a_unix_socket_is_not_taken_from_a_daemon_that_serves_it(daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = await daemon("--demo", "--unix-socket", str(path))
    await first.wait_until_ready()

    status, log = await (await daemon("--demo", "--unix-socket", str(path))).end()

    assert status == 1
    assert "Address already in use" in log
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get("http://localhost/health") as response,
    ):
        assert response.status == 200


async def test_a_unix_socket_that_nobody_serves_any_more_is_replaced(daemon: Daemons, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))

    running = await daemon("--demo", "--unix-socket", str(path))

    await running.wait_until_ready()


@pytest.mark.parametrize(
    "request_text",
    [
        b"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-LEAK\x01\r\n\r\n",
        b"GET /v1/models?key=sk-LEAK HTTP/9.9x\r\n\r\n",
        b"GET /v1/models?key=sk-LEAK&x=" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nx-api-key: sk-LEAK\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: 3\r\n\r\nabc",
    ],
    ids=["header", "version", "length", "encoding"],
)
async def test_a_request_that_is_no_http_gets_neither_a_traceback_nor_its_key_into_the_log(
    request_text: bytes, daemon: Daemons
) -> None:
    running = await daemon("--demo", "--port", "0")
    await running.wait_until_ready()

    reader, writer = await asyncio.open_connection("127.0.0.1", int(running.url.rpartition(":")[2]))
    writer.write(request_text)
    answer = await reader.read(50)
    writer.close()
    running.process.terminate()
    status, log = await running.end()

    assert b" 400 " in answer
    assert status == 0
    assert "LEAK" not in log
    assert "Traceback" not in log


async def test_systemd_is_told_when_the_daemon_is_ready_and_when_it_stops(daemon: Daemons, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        running = await daemon("--demo", "--port", "0", NOTIFY_SOCKET=str(tmp_path / "notify"))
        loop = asyncio.get_running_loop()

        assert await asyncio.wait_for(loop.sock_recv(manager, 100), 10) == b"READY=1"
        running.process.terminate()
        assert await asyncio.wait_for(loop.sock_recv(manager, 100), 10) == b"STOPPING=1"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "no upstream is configured"),
        (("--demo", "--host", "0.0.0.0"), "refusing to listen on 0.0.0.0 without a key"),
        (("--demo", "--port", "x"), "--port: 'x' is not a port number, 0 to 65535"),
        (("--demo", "--workers", "0"), "--workers: '0' is not a number of processes, 1 to 1024"),
        (("--demo", "--workers", "1025"), "--workers: '1025' is not a number of processes, 1 to 1024"),
        (("--workers", "2"), "no upstream is configured"),
        (("--nonsense",), "--nonsense"),
        (("check",), "no upstream is configured"),
        (("check", "--config", "/nonexistent.ini"), "/nonexistent.ini: cannot be read: No such file or directory"),
    ],
)
async def test_a_bad_configuration_ends_with_status_2_and_no_traceback(
    arguments: tuple[str, ...], problem: str, daemon: Daemons
) -> None:
    status, log = await (await daemon(*arguments)).end()

    assert status == 2
    assert problem in log
    assert "worker 1" not in log
    assert "Traceback" not in log


async def test_an_address_that_is_taken_ends_with_status_1_and_no_traceback(
    daemon: Daemons, upstream: Upstream
) -> None:
    port = upstream.url.rpartition(":")[2]

    status, log = await (await daemon("--demo", "--port", port)).end()

    assert status == 1
    assert f"cannot listen on http://127.0.0.1:{port}: " in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "{port}"), "Address already in use; choose another with --port or --unix-socket"),
        (("--host", "192.0.2.1", "--allow-anonymous"), "Cannot assign requested address"),
        (("--unix-socket", "{file}"), "Socket operation on non-socket"),
        (("--unix-socket", "{file}/s"), "Not a directory"),
    ],
    ids=["taken", "not ours", "no socket", "no directory"],
)
async def test_why_it_cannot_listen_is_said_in_the_words_of_the_system(
    arguments: tuple[str, ...], said: str, daemon: Daemons, upstream: Upstream, tmp_path: Path
) -> None:
    # A file in the way was an "Address PosixPath('...') is already in use".
    file = tmp_path / "file"
    file.write_text("kept")
    port = upstream.url.rpartition(":")[2]

    status, log = await (await daemon("--demo", *(text.format(port=port, file=file) for text in arguments))).end()

    assert status == 1
    assert log.endswith(f": {said}\n")
    assert file.read_text() == "kept"


async def test_an_upstream_without_its_key_is_warned_of_at_the_start(daemon: Daemons, tmp_path: Path) -> None:
    config = tmp_path / "config.ini"
    config.write_text("[upstream openai]\nprovider = openai\n")

    running = await daemon("--config", str(config), "--port", "0")
    await running.wait_until_ready()

    assert f"WARNING aiproxyd: {config}:1: [upstream openai] api.openai.com wants an API key: set OPENAI_API_KEY" in (
        running.log
    )


async def test_an_upstream_that_is_the_daemon_itself_ends_with_status_2(daemon: Daemons) -> None:
    environment = {"OPENAI_API_KEY": "sk", "OPENAI_BASE_URL": "http://localhost:3123/v1"}

    status, log = await (await daemon("--port", "3123", **environment)).end()

    assert status == 2
    assert "is aiproxyd itself" in log


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_small_answers_on_one_connection_do_not_wait_for_delayed_acknowledgements(
    workers: str, daemon: Daemons, http: aiohttp.ClientSession
) -> None:
    # Without TCP_NODELAY each of these takes 40 ms: https://datatracker.ietf.org/doc/html/rfc1122#page-98.
    running = await daemon("--demo", "--port", "0", "--workers", workers)
    await running.wait_until_ready()
    loop = asyncio.get_running_loop()
    times: list[float] = []

    for _ in range(20):
        started = loop.time()
        body = b'{"model":"demo","stream":true,"messages":[{"role":"user","content":"hi"}]}'
        async with http.post(f"{running.url}/v1/chat/completions", data=body) as response:
            await response.read()
        times.append(loop.time() - started)

    assert sorted(times)[10] < 0.03
