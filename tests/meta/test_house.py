"""The house is as it says: registries complete, modules importable alone, each with its tests."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import aiproxyd
from aiproxyd import formats, providers
from aiproxyd.config import DEFAULT_BASE_URLS
from aiproxyd.formats import FORMATS
from aiproxyd.formats.base import Format
from aiproxyd.providers import PROVIDERS
from aiproxyd.providers.base import Provider

ROOT = Path(__file__).parents[2]
MODULES = [module.name for module in pkgutil.walk_packages(aiproxyd.__path__, "aiproxyd.")]
NO_TEST_OF_ITS_OWN = {
    # Wiring and I/O: shown by the tests in tests/http and tests/commands.
    "__main__": "commands/test_main.py",
    "app": "http/test_failures.py",
    "appkeys": "http/test_auth.py",
    "attempt": "http/test_matrix.py",
    "cache/calls": "http/test_cache.py",
    "cache/flights": "http/test_cache.py",
    "cache/questions": "http/test_cache.py",
    "cache/replies": "http/test_cache_matrix.py",
    "config": "test_config.py",
    "dispatch": "http/test_failures.py",
    "handlers/generation": "http/test_byte_path.py",
    "handlers/models": "http/test_models.py",
    "handlers/passthrough": "http/test_passthrough.py",
    "handlers/reading": "http/test_passthrough.py",
    "handlers/status": "http/test_status.py",
    "middlewares/admission": "http/test_failures.py",
    "middlewares/auth": "http/test_auth.py",
    "middlewares/context": "http/test_status.py",
    "middlewares/errors": "http/test_failures.py",
    "providers/anthropic": "providers/test_contract.py",
    "providers/base": "providers/test_contract.py",
    "providers/gemini": "providers/test_contract.py",
    "providers/openai": "providers/test_contract.py",
    "relay": "http/test_failures.py",
    "sidecalls": "http/test_sidecalls.py",
    "telemetry/records": "telemetry/test_logs.py",
}


def subclasses_in(package: object, base: type) -> set[type]:
    """Return the concrete subclasses of *base* in the modules of *package*."""
    found: set[type] = set()
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):  # type: ignore[attr-defined]
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, base) and value.__dict__.get("name"):
                found.add(value)
    return found


def test_every_format_and_every_provider_is_registered() -> None:
    assert subclasses_in(formats, Format) == {type(fmt) for fmt in FORMATS.values()}
    assert subclasses_in(providers, Provider) == set(PROVIDERS.values())
    assert set(PROVIDERS) == set(DEFAULT_BASE_URLS)
    assert {name for provider in PROVIDERS.values() for name in provider.formats} == set(FORMATS)


@pytest.mark.parametrize("module", ["aiproxyd.errors", "aiproxyd.formats", "aiproxyd.config", "aiproxyd.app"])
def test_a_module_can_be_imported_alone_with_warnings_as_errors(module: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", f"import {module}"], check=True, cwd=ROOT)


def test_every_module_has_a_test() -> None:
    for module in MODULES:
        name = module.removeprefix("aiproxyd.").replace(".", "/")
        path = ROOT / "aiproxyd" / name
        if path.is_dir():
            continue
        folder, _, leaf = name.rpartition("/")
        test = NO_TEST_OF_ITS_OWN.get(name) or f"{folder}/test_{leaf}.py".removeprefix("/")
        assert (ROOT / "tests" / test).exists(), test
