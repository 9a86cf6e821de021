"""The proxies under measurement: how each is configured and started, and how one tells that it is ready."""

import grp
import hashlib
import http.client
import importlib.metadata
import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from benchmarks.measures import AIPROXYD, CACHED, LITELLM, NGINX, RELAY, Ask
from benchmarks.processes import HERE, Unavailable, end, free_port, process_tree, spawn

KEY = "bench-key"
WHOLE = Ask.of("chat", "bench-chat")
POLL_S = 0.005
START_PATIENCE_S = 15.0
LITELLM_PATIENCE_S = 90.0


@dataclass(frozen=True)
class Site:
    """Where a candidate is put, and what it has there."""

    directory: Path
    upstream_port: int
    connections: int = 1024
    """What a candidate that must know beforehand is to stand, both sides together."""
    litellm: Path | None = None
    """The virtual environment in which LiteLLM is installed."""


@dataclass
class Candidate:
    """One proxy under measurement: how it starts, and its process while it runs."""

    name: str
    argv: list[str]
    port: int
    directory: Path
    version: str = ""
    """Of what is not named with the machine anyway."""
    environment: Mapping[str, str] = field(default_factory=dict)
    patience_s: float = START_PATIENCE_S
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        with (self.directory / "stderr").open("wb") as log:
            self.process = spawn(self.argv, self.directory, stdout=log, stderr=log, environment=self.environment)

    def stop(self) -> None:
        if self.process:
            end(self.process)
            self.process = None

    def pids(self) -> list[int]:
        return process_tree(self.process.pid) if self.process else []

    def complaint(self) -> str:
        """The last thing the candidate said, for a message."""
        lines = (self.directory / "stderr").read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "none")

    def wait_until(self, is_ready: Callable[[int], bool]) -> None:
        """Poll the started process.

        Raises:
            Unavailable: it ended, or was not ready in time.
        """
        deadline = time.monotonic() + self.patience_s
        while not is_ready(self.port):
            if self.process and self.process.poll() is not None:
                raise Unavailable(f"{self.name} ended with status {self.process.returncode}: {self.complaint()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"{self.name} not ready after {self.patience_s:.0f} s: {self.complaint()}")
            time.sleep(POLL_S)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def has_answered(port: int) -> bool:
    """Send one whole chat completion; tell whether it came back."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    try:
        connection.request("POST", WHOLE.path, WHOLE.body, headers)
        answer = connection.getresponse()
        return answer.status == 200 and WHOLE.api.proof.encode() in answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


NGINX_CONFIG = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
{user}
events {{ worker_connections {connections}; }}
http {{
    access_log access.log;
    keepalive_requests 1000000000;
    client_max_body_size 32m;
{temp_paths}
    upstream mock {{
        server 127.0.0.1:{upstream_port};
        keepalive 64;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
"""

AIPROXYD_CONFIG = """\
[aiproxyd]
host = 127.0.0.1
port = {port}

[upstream chat]
provider = openai
base-url = http://127.0.0.1:{upstream_port}/v1
api = chat
api-key = bench
models = bench-chat*

[upstream responses]
provider = openai
base-url = http://127.0.0.1:{upstream_port}/v1
api = responses
api-key = bench
models = bench-responses*

[upstream messages]
provider = anthropic
base-url = http://127.0.0.1:{upstream_port}
api-key = bench
models = bench-messages*

[upstream gemini]
provider = gemini
base-url = http://127.0.0.1:{upstream_port}
api-key = bench
models = bench-gemini*

[key bench]
secret = sha256:{secret}
"""


def make_nginx(site: Site) -> Candidate:
    """One worker, upstream connections kept alive, an access log, everything in a directory of its own."""
    program = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not program:
        raise Unavailable("nginx is not installed")
    site.directory.mkdir()
    built = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
    modules = ("proxy", "fastcgi", "uwsgi", "scgi")
    paths = ["client_body", *(name for name in modules if f"--without-http_{name}_module" not in built)]
    # Started by root, the worker would become another user, who may not enter this directory.
    user = f"user {pwd.getpwuid(0).pw_name} {grp.getgrgid(os.getgid()).gr_name};" if os.getuid() == 0 else ""
    port = free_port()
    text = NGINX_CONFIG.format(
        user=user,
        temp_paths="\n".join(f"    {path}_temp_path {path};" for path in paths),
        upstream_port=site.upstream_port,
        port=port,
        connections=site.connections,
    )
    (site.directory / "nginx.conf").write_text(text)
    argv = [program, "-p", f"{site.directory}/", "-c", "nginx.conf", "-e", "error.log"]
    version = built.partition("\n")[0].rpartition("/")[2]
    return Candidate(NGINX, argv, port, site.directory, version)


def make_relay(site: Site) -> Candidate:
    port = free_port()
    argv = [sys.executable, str(HERE / "relay.py"), str(port), str(site.upstream_port)]
    return Candidate(RELAY, argv, port, site.directory)


def make_aiproxyd(site: Site) -> Candidate:
    """As an operator would start it: one key, one upstream of each kind, the access log on."""
    site.directory.mkdir()
    port = free_port()
    config = site.directory / "config.ini"
    secret = hashlib.sha256(KEY.encode()).hexdigest()
    config.write_text(AIPROXYD_CONFIG.format(port=port, upstream_port=site.upstream_port, secret=secret))
    script = Path(sys.executable).parent / "aiproxyd"
    program = [str(script)] if script.exists() else [sys.executable, "-m", "aiproxyd"]
    argv = [*program, "--config", str(config)]
    return Candidate(AIPROXYD, argv, port, site.directory, importlib.metadata.version("aiproxyd"))


def make_cached(site: Site) -> Candidate:
    """As above, with answers kept for an hour."""
    candidate = make_aiproxyd(site)
    return replace(candidate, name=CACHED, version="", argv=[*candidate.argv, "--cache-ttl", "3600"])


def make_litellm(site: Site) -> Candidate:
    """One worker, one upstream, and nothing switched on that costs: no key, no database, no logs."""
    program = site.litellm / "bin" / "litellm" if site.litellm else None
    if not program or not program.exists():
        raise Unavailable("litellm is not installed: --litellm PATH names the virtual environment that has it")
    site.directory.mkdir()
    port = free_port()
    config = site.directory / "config.yaml"
    models = ("bench-chat", "bench-chat-paced", "bench-chat-idle")
    upstream = {"api_base": f"http://127.0.0.1:{site.upstream_port}/v1", "api_key": "bench"}
    settings = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": f"openai/{name}", **upstream}} for name in models
        ],
        "litellm_settings": {"set_verbose": False, "num_retries": 0, "callbacks": []},
        # It listens on loopback alone, in front of a mock; checking a key would only make it slower.
        "general_settings": {"disable_spend_logs": True, "dangerously_permit_weak_or_unset_master_key": True},
    }
    # Every JSON text is a YAML text.
    config.write_bytes(msgspec.json.encode(settings))
    argv = [str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    asked = [str(program.parent / "python"), "-c", "import importlib.metadata as m; print(m.version('litellm'))"]
    version = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        # Otherwise it fetches a list of prices when it starts.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        # As many connections to the upstream as there are calls.
        "AIOHTTP_CONNECTOR_LIMIT": "0",
        "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": "0",
    }
    return Candidate(LITELLM, argv, port, site.directory, version, environment, LITELLM_PATIENCE_S)


MAKERS: Mapping[str, Callable[[Site], Candidate]] = {
    NGINX: make_nginx,
    RELAY: make_relay,
    AIPROXYD: make_aiproxyd,
    CACHED: make_cached,
    LITELLM: make_litellm,
}
