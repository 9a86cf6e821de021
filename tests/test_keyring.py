import hashlib

from hypothesis import given
from hypothesis import strategies as st

from aiproxyd.config import KeySettings
from aiproxyd.keyring import ANONYMOUS, Keyring


def key(name: str, secret: str, *models: str) -> KeySettings:
    return KeySettings(name=name, digest=hashlib.sha256(secret.encode()).digest(), models=models)


def test_a_key_leads_to_its_principal() -> None:
    keyring = Keyring([key("tablet", "sk-tablet"), key("desk", "sk-schlüssel")])

    tablet, desk = keyring.find("sk-tablet"), keyring.find("sk-schlüssel")

    assert tablet is not None
    assert desk is not None
    assert (tablet.name, desk.name) == ("tablet", "desk")
    assert not keyring.is_empty


@given(secret=st.text().filter(lambda text: text != "sk-tablet"))
def test_no_other_text_leads_anywhere(secret: str) -> None:
    assert Keyring([key("tablet", "sk-tablet")]).find(secret) is None


def test_bytes_of_a_header_that_are_no_text_lead_nowhere() -> None:
    secret = b"sk-\xff\xfe".decode("utf-8", "surrogateescape")

    assert Keyring([key("tablet", "sk-tablet")]).find(secret) is None


def test_the_digest_itself_is_no_key() -> None:
    settings = key("tablet", "sk-tablet")

    assert Keyring([settings]).find(settings.digest.hex()) is None
    assert Keyring([settings]).find(f"sha256:{settings.digest.hex()}") is None


def test_without_keys_nobody_is_found() -> None:
    assert Keyring([]).is_empty
    assert Keyring([]).find("") is None


def test_a_principal_may_use_the_models_of_its_key() -> None:
    principal = Keyring([key("tablet", "sk-tablet", "fast", "gpt-5*")]).find("sk-tablet")

    assert principal is not None
    assert [name for name in ("fast", "gpt-5-mini", "faster", "gpt-4", "") if principal.may_use(name)] == [
        "fast",
        "gpt-5-mini",
    ]


def test_a_key_without_models_may_use_all() -> None:
    principal = Keyring([key("tablet", "sk-tablet")]).find("sk-tablet")

    assert principal is not None
    assert principal.may_use("anything")
    assert ANONYMOUS.may_use("anything")
