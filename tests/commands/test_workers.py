"""The daemon as several processes: who answers, who ends when, and what is seen of it from outside."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.commands.conftest import Daemon, Daemons
from tests.support import Reply, Upstream, upstream_section

BEGINNING = b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}\n\n'
REST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
CHAT = b'{"model":"demo","messages":[{"role":"user","content":"hi"}]}'
TWO = ("--workers", "2", "--port", "0")

Samples = dict[tuple[str, tuple[str, ...]], float]


async def start_two(daemon: Daemons, *arguments: str, **environment: str) -> Daemon:
    running = await daemon(*TWO, *(arguments or ("--demo",)), **environment)
    await running.wait_until_ready()
    return running


async def start_two_before(upstream: Upstream, daemon: Daemons, tmp_path: Path) -> Daemon:
    config = tmp_path / "config.ini"
    config.write_text(upstream_section(upstream, "openai"))
    return await start_two(daemon, "--config", str(config))


async def ask(running: Daemon, path: str = "/v1/chat/completions", body: bytes | None = CHAT, **headers: str) -> str:
    """Ask on a connection of its own, which is any worker's; return the status and the answer."""
    timeout = aiohttp.ClientTimeout(total=1.5)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.request("POST" if body else "GET", running.url + path, data=body, headers=headers) as response,
    ):
        return f"{response.status} {await response.text()}"


async def ask_until_answered(running: Daemon, path: str) -> str:
    """Ask again while the worker that has got the connection does not answer."""
    for _ in range(20):
        try:
            return await ask(running, path, None)
        except (TimeoutError, aiohttp.ClientError):
            continue
    raise AssertionError("nobody answers")


async def measure(running: Daemon) -> Samples:
    """Return the numbers by name and values of the labels, in the order of the labels' names.

    Asks often enough at once for every worker to be asked; the first answer counts.
    """
    asking = [asyncio.ensure_future(ask(running, "/metrics", None)) for _ in range(16)]
    text = await next(asyncio.as_completed(asking))
    for each in asking:
        each.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    return read_samples(text)


def read_samples(answer: str) -> Samples:
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.removeprefix("200 "))
        for sample in family.samples
    }


def is_alive(pid: int) -> bool:
    """Tell whether the process *pid* is there and has not ended; whoever is to ask for its end may be slow."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_two_workers_answer_at_one_address_and_whoever_is_asked_shows_the_metrics_of_both(
    daemon: Daemons,
) -> None:
    running = await start_two(daemon)

    for _ in range(40):
        assert (await ask(running)).startswith("200")
    seen = [read_samples(await ask(running, "/metrics", None)) for _ in range(8)]  # any worker is asked

    assert running.log.count("listens on") == 1
    assert f"listens on {running.url} with 2 workers" in running.log
    answered = [seen[0]["aiproxyd_attempts_total", ("ok", "demo", number)] for number in "12"]
    assert sum(answered) == 40
    assert min(answered) > 0
    for samples in seen:
        assert [samples["aiproxyd_attempts_total", ("ok", "demo", number)] for number in "12"] == answered
        assert [samples["aiproxyd_worker_up", (number,)] for number in "12"] == [1.0, 1.0]
        assert [samples["process_resident_memory_bytes", (number,)] > 1e6 for number in "12"] == [True, True]
    running.process.terminate()
    status, log = await running.end()
    assert status == 0
    assert log.count("stopping") == 1
    assert "Traceback" not in log
    assert "ERROR" not in log


async def test_one_worker_needs_no_parent_and_its_metrics_no_label(daemon: Daemons) -> None:
    running = await daemon("--demo", "--port", "0", "--workers", "1")
    await running.wait_until_ready()

    text = await ask(running, "/metrics", None)

    assert "worker" not in running.log
    assert "worker" not in text
    assert "process_resident_memory_bytes " in text


async def test_a_worker_that_does_not_answer_is_missing_in_the_metrics_and_named(daemon: Daemons) -> None:
    running = await start_two(daemon)
    os.kill(running.workers()[0], signal.SIGSTOP)

    samples = await measure(running)

    assert samples["aiproxyd_worker_up", ("1",)] == 0.0
    assert samples["aiproxyd_worker_up", ("2",)] == 1.0
    assert ("process_open_fds", ("1",)) not in samples
    assert samples["process_open_fds", ("2",)] > 0
    os.kill(running.workers()[0], signal.SIGCONT)
    assert (await measure(running))["aiproxyd_worker_up", ("1",)] == 1.0


async def test_a_worker_that_is_killed_is_replaced_while_calls_go_on(daemon: Daemons) -> None:
    running = await start_two(daemon)
    killed, other = running.workers()

    os.kill(killed, signal.SIGKILL)
    answers = [await ask_until_answered(running, "/health") for _ in range(20)]
    await running.wait_for("worker 1 is process", 2)

    assert set(answers) == {'200 {"status":"alive"}'}
    assert f"ERROR aiproxyd.supervisor: worker 1 (process {killed}) was ended by SIGKILL; the next one starts now" in (
        running.log
    )
    with pytest.raises(ProcessLookupError):
        os.kill(killed, 0)  # not even a zombie
    assert is_alive(other)
    assert (await measure(running))["aiproxyd_worker_up", ("1",)] == 1.0
    running.process.terminate()
    assert (await running.end())[0] == 0
    assert not any(map(is_alive, running.workers()))


async def test_a_worker_that_keeps_ending_is_replaced_ever_more_slowly(daemon: Daemons) -> None:
    running = await start_two(daemon)

    pauses: list[float] = []
    for count in range(3):
        os.kill(running.workers()[-1], signal.SIGKILL)
        killed = time.monotonic()
        await running.wait_for("worker 2 is process", 2 + count)
        pauses.append(time.monotonic() - killed)

    assert re.findall("the next one starts (.*)", running.log) == ["now", "in 0.5 s", "in 1 s"]
    assert pauses[0] < 0.4
    assert 0.5 <= pauses[1] < 0.9
    assert 1 <= pauses[2] < 1.5
    os.kill(running.workers()[-1], signal.SIGKILL)
    await running.wait_for("in 2 s")
    running.process.terminate()
    stopped = time.monotonic()
    assert (await running.end())[0] == 0
    assert time.monotonic() - stopped < 1.5  # the empty place is not waited for


@pytest.mark.parametrize(
    ("number", "goes_to_all"),
    [(signal.SIGTERM, False), (signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGINT, True)],
    ids=["SIGTERM", "SIGINT", "as systemd stops a unit", "Control-C"],
)
async def test_a_signal_lets_a_running_stream_finish_and_leaves_no_process(
    number: signal.Signals, goes_to_all: bool, daemon: Daemons, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(Reply(chunks=[BEGINNING] * 10 + [REST], gap_s=0.05, content_type="text/event-stream"))
    running = await start_two_before(upstream, daemon, tmp_path)
    workers = running.workers()

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/v1/chat/completions", data=b'{"model":"m","stream":true}') as response,
    ):
        body = await response.content.readany()
        running.process.send_signal(number)
        await asyncio.sleep(0.1)
        for pid in workers if goes_to_all else ():
            with contextlib.suppress(ProcessLookupError):  # one without a stream has ended
                os.kill(pid, number)
        await asyncio.sleep(0.1)
        with pytest.raises(aiohttp.ClientConnectionError):
            await ask(running, "/health", None)
        body += await response.content.read()
    status, log = await running.end()

    assert body == BEGINNING * 10 + REST
    assert status == 0
    assert log.count("stopping") == 1
    assert log.count("is process") == 2
    assert not any(map(is_alive, workers))


async def test_a_second_signal_ends_all_at_once(daemon: Daemons, upstream: Upstream, tmp_path: Path) -> None:
    upstream.script(Reply(chunks=[BEGINNING] * 1000, gap_s=0.05, content_type="text/event-stream"))
    running = await start_two_before(upstream, daemon, tmp_path)

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/v1/chat/completions", data=b'{"model":"m","stream":true}') as response,
    ):
        await response.content.readany()
        running.process.terminate()
        await running.wait_for("stopping")
        running.process.terminate()
        status, log = await asyncio.wait_for(running.end(), 2)
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()

    assert status == -signal.SIGTERM
    assert "ended by" not in log
    assert not any(map(is_alive, running.workers()))


async def test_workers_without_a_parent_stop_in_good_form(daemon: Daemons, upstream: Upstream, tmp_path: Path) -> None:
    upstream.script(Reply(chunks=[BEGINNING] * 10 + [REST], gap_s=0.05, content_type="text/event-stream"))
    running = await start_two_before(upstream, daemon, tmp_path)

    body = b'{"model":"m","stream":true}'
    streams = [asyncio.ensure_future(ask(running, body=body)) for _ in range(8)]  # each worker has some
    while upstream.running < 8:  # noqa: ASYNC110  # at most until their timeout
        await asyncio.sleep(0.01)
    running.process.kill()
    await running.wait_for("its parent has ended", 2)
    assert upstream.running == 8  # nobody waits for another one's streams
    answers = await asyncio.gather(*streams)
    status, log = await asyncio.wait_for(running.end(), 3)  # the log ends when nobody is left to write it

    assert set(answers) == {"200 " + (BEGINNING * 10 + REST).decode()}
    assert status == -signal.SIGKILL
    assert log.count("its parent has ended") == 2
    assert "Traceback" not in log
    for _ in range(200):
        if any(map(is_alive, running.workers())):
            await asyncio.sleep(0.01)
    assert not any(map(is_alive, running.workers()))


async def test_workers_share_a_unix_socket_that_accepts_nothing_while_they_stop(
    daemon: Daemons, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.script(Reply(chunks=[BEGINNING] * 10 + [REST], gap_s=0.05, content_type="text/event-stream"))
    path, config = tmp_path / "s", tmp_path / "config.ini"
    config.write_text(upstream_section(upstream, "openai"))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    running = await daemon("--workers", "2", "--config", str(config), "--unix-socket", str(path))
    await running.wait_until_ready()
    os.kill(running.workers()[1], signal.SIGKILL)
    await running.wait_for("is process", 3)

    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.post("http://localhost/v1/chat/completions", data=b'{"model":"m","stream":true}') as response,
    ):
        body = await response.content.readany()
        mode = path.stat().st_mode & 0o777
        running.process.terminate()
        await asyncio.sleep(0.2)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_unix_connection(path)
        body += await response.content.read()

    assert body == BEGINNING * 10 + REST
    assert (await running.end())[0] == 0
    assert f"listens on unix:{path} with 2 workers" in running.log
    assert mode == 0o660
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--port", "{port}"), "Address already in use; choose another with --port or --unix-socket"),
        (("--port", "{shared}"), "Address already in use; choose another with --port or --unix-socket"),
        (("--host", "192.0.2.1", "--allow-anonymous"), "Cannot assign requested address"),
        (("--unix-socket", "{file}"), "Socket operation on non-socket"),
        (("--unix-socket", "{file}/s"), "Not a directory"),
        (("--unix-socket", "{socket}"), "Address already in use; choose another with --port or --unix-socket"),
    ],
    ids=["taken", "taken by others who share it", "not ours", "no socket", "no directory", "socket taken"],
)
async def test_workers_that_cannot_listen_are_not_started(
    arguments: tuple[str, ...], said: str, daemon: Daemons, upstream: Upstream, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with socket.socket() as shared, socket.socket(socket.AF_UNIX) as taken:
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(("127.0.0.1", 0))
        shared.listen()
        taken.bind(str(tmp_path / "taken"))
        taken.listen()
        names = {
            "port": upstream.url.rpartition(":")[2],
            "shared": shared.getsockname()[1],
            "file": file,
            "socket": tmp_path / "taken",
        }

        status, log = await (await daemon("--demo", *TWO, *(text.format(**names) for text in arguments))).end()

    assert status == 1
    assert log.endswith(f": {said}\n")
    assert "cannot listen on " in log
    assert "worker 1" not in log
    assert file.read_text() == "kept"


async def test_a_name_with_several_addresses_has_one_port_at_all_of_them(daemon: Daemons) -> None:
    running = await start_two(daemon, "--demo", "--host", "localhost")
    port = int(running.url.rpartition(":")[2])

    for *_, address in await asyncio.get_running_loop().getaddrinfo("localhost", port, type=socket.SOCK_STREAM):
        _, writer = await asyncio.open_connection(*address[:2])
        writer.close()


async def test_systemd_is_told_once_when_all_workers_are_ready_and_once_when_they_stop(
    daemon: Daemons, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        running = await start_two(daemon, "--demo", NOTIFY_SOCKET=str(tmp_path / "notify"))
        os.kill(running.workers()[0], signal.SIGKILL)
        await running.wait_for("is process", 3)
        while (await measure(running))["aiproxyd_worker_up", ("1",)] != 1.0:
            pass
        running.process.terminate()
        await running.end()

        told = [manager.recv(100), manager.recv(100)]
        with pytest.raises(BlockingIOError):
            manager.recv(100)

    assert told == [b"READY=1", b"STOPPING=1"]


async def test_a_call_that_comes_back_is_refused_by_whichever_worker_gets_it(
    daemon: Daemons, upstream: Upstream, tmp_path: Path
) -> None:
    # Each worker had a mark of its own, and sent round again what another one had sent.
    upstream.script(Reply(b"{}"))
    running = await start_two_before(upstream, daemon, tmp_path)
    await ask(running, body=b'{"model":"m"}')
    via = upstream.received[0].headers["Via"]

    answers = [await ask(running, body=b'{"model":"m"}', via=via) for _ in range(16)]

    assert {answer.split()[0] for answer in answers} == {"508"}
    assert len(upstream.received) == 1


async def test_more_workers_than_the_limits_of_the_process_allow_end_with_status_1_and_no_traceback(
    daemon: Daemons,
) -> None:
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        f"ulimit -n 256; exec {sys.executable} -m aiproxyd --demo --port 0 --workers 1024",
        stderr=asyncio.subprocess.PIPE,
    )

    _, log = await process.communicate()

    assert process.returncode == 1
    assert log.decode().endswith(": cannot have 1024 workers: Too many open files\n")
