"""The least an aiohttp gateway can be: peek at model and stream, forward, pass the answer back.

The baseline that tells what aiohttp itself costs and what aiproxyd's features add: no keys, no log, no usage, no
error bodies. Usage: `relay.py PORT UPSTREAM_PORT`.
"""

import sys
from collections.abc import AsyncIterator

import msgspec
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web

SESSION = web.AppKey("session", ClientSession)
UPSTREAM = web.AppKey("upstream", str)


class _Peek(msgspec.Struct):
    model: str = ""
    """In Gemini's API both stand in the path."""
    stream: bool = False


_decoder = msgspec.json.Decoder(_Peek)


async def relay(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    peek = _decoder.decode(body)
    is_stream = peek.stream or ":stream" in request.path
    headers = {"content-type": "application/json", "authorization": request.headers["authorization"]}
    async with request.app[SESSION].post(request.app[UPSTREAM] + request.path_qs, data=body, headers=headers) as answer:
        passed = {"content-type": answer.headers["content-type"]}
        if not is_stream:
            return web.Response(status=answer.status, body=await answer.read(), headers=passed)
        response = web.StreamResponse(status=answer.status, headers=passed)
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
        return response


async def _open_session(app: web.Application) -> AsyncIterator[None]:
    timeout = ClientTimeout(total=None, sock_connect=5, sock_read=60)
    async with ClientSession(connector=TCPConnector(limit=0), timeout=timeout, cookie_jar=DummyCookieJar()) as session:
        app[SESSION] = session
        yield


def main() -> None:
    port, upstream_port = (int(argument) for argument in sys.argv[1:])
    app = web.Application(client_max_size=32 * 1024 * 1024)
    app[UPSTREAM] = f"http://127.0.0.1:{upstream_port}"
    app.cleanup_ctx.append(_open_session)
    app.router.add_post("/v1/chat/completions", relay)
    app.router.add_post("/{other:v1.*}", relay)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()
