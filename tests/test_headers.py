from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from aiproxyd.headers import read_retry_after_s, select_for_caller, select_for_upstream


def test_the_upstream_sees_what_the_sdks_say_about_the_call() -> None:
    passed = {
        "Accept": "text/event-stream",
        "Content-Type": "application/json",
        "User-Agent": "codex_cli_rs/1.0",
        "anthropic-version": "2026-10-21",
        "ANTHROPIC-BETA": "context-1m",
        "OpenAI-Beta": "responses=experimental",
        "X-Stainless-Retry-Count": "0",
        "x-goog-api-client": "google-genai-sdk/3.4.0",
        "x-goog-request-params": "model=m",
        "x-goog-fieldmask": "name",
        "X-Goog-Upload-Command": "start",
        "x-server-timeout": "600",
        "Idempotency-Key": "stainless-1",
        "x-claude-code-session-id": "1",
        "session_id": "2",
        "originator": "codex_cli_rs",
        "traceparent": "00-1-2-01",
        "Via": "1.1 other",
    }

    assert select_for_upstream(passed) == CIMultiDict(passed)


def test_the_upstream_sees_no_credential_cookie_or_header_of_the_connection() -> None:
    kept_back = {
        "Authorization": "Bearer sk-caller",
        "X-Api-Key": "sk-caller",
        "Api-Key": "sk-caller",
        "x-goog-api-key": "sk-caller",
        "X-Goog-Api-Key": "sk-caller",
        "x-goog-user-project": "p",
        "x-goog-iam-authorization-token": "t",
        "x-goog-iap-jwt-assertion": "t",
        "x-goog-encryption-key": "k",
        "x-goog-new": "1",
        "OpenAI-Organization": "org-1",
        "openai-project": "proj_1",
        "openai-api-key": "sk-caller",
        "Anthropic-Api-Key": "sk-caller",
        "anthropic-workspace-id": "w-1",
        "x-server-timeout-x": "1",
        "sessions": "1",
        "x-session-token": "t",
        "Cookie": "a=1",
        "Proxy-Authorization": "Basic x",
        "Host": "gateway",
        "Connection": "keep-alive",
        "Keep-Alive": "5",
        "Transfer-Encoding": "chunked",
        "TE": "trailers",
        "Upgrade": "h2c",
        "Content-Length": "5",
        "Content-Encoding": "gzip",
        "Accept-Encoding": "gzip",
        "Expect": "100-continue",
        "X-Forwarded-For": "10.0.0.1",
        "Forwarded": "for=10.0.0.1",
        "Origin": "http://a",
        "X-New": "1",
    }

    assert not select_for_upstream(kept_back)


def test_a_header_that_stands_twice_passes_twice() -> None:
    headers = CIMultiDict([("anthropic-beta", "a"), ("anthropic-beta", "b"), ("cookie", "c")])

    assert list(select_for_upstream(headers).items()) == [("anthropic-beta", "a"), ("anthropic-beta", "b")]


def test_the_caller_sees_the_limits_and_nothing_about_the_connection_or_the_account() -> None:
    passed = {
        "Content-Type": "text/event-stream; charset=utf-8",
        "Retry-After": "3",
        "retry-after-ms": "2500",
        "X-Should-Retry": "true",
        "X-RateLimit-Remaining-Tokens": "1",
        "anthropic-ratelimit-requests-reset": "2026-11-23T00:00:00Z",
        "request-id": "req_1",
        "OpenAI-Processing-Ms": "12",
    }
    kept_back = {
        "Content-Length": "5",
        "Content-Encoding": "gzip",
        "Transfer-Encoding": "chunked",
        "Connection": "close",
        "Set-Cookie": "__cf_bm=1",
        "Server": "cloudflare",
        "Date": "Mon, 23 Nov 2026 00:00:00 GMT",
        "openai-organization": "org-1",
        "openai-project": "proj_1",
        "anthropic-organization-id": "1",
        "x-request-id": "theirs",
        "Access-Control-Allow-Origin": "*",
        "Strict-Transport-Security": "max-age=1",
    }

    assert select_for_caller(passed | kept_back) == CIMultiDict(passed)


def test_the_time_to_wait_is_read_in_seconds() -> None:
    def read(**headers: str) -> float | None:
        return read_retry_after_s(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}))

    assert read(Retry_After="7") == 7.0
    assert read(Retry_After="0.5") == 0.5
    assert read(Retry_After_Ms="1500", Retry_After="2") == 1.5
    assert read(Retry_After_Ms="soon", Retry_After="2") == 2.0
    assert read(Retry_After_Ms="-1", Retry_After="2") == 2.0
    assert read(Retry_After="0") == 0.0
    assert read() is None


def test_a_date_is_so_many_seconds_from_now() -> None:
    for date in (datetime.now(UTC), datetime.now(timezone(timedelta(hours=2)))):
        wait_s = read_retry_after_s({"retry-after": format_datetime(date + timedelta(seconds=90))})

        assert wait_s is not None
        assert 80 < wait_s <= 90
    assert read_retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert read_retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 -0000"}) == 0.0


def test_a_time_to_wait_that_is_none() -> None:
    for text in (
        "",
        "-1",
        "inf",
        "nan",
        "1e999",
        "3s",
        "Wed, 99 Oct 2026 07:28:00 GMT",
        "Wed, 21 Oct 99999 07:28:00 GMT",
        # These used to raise OverflowError, which was a 500 for the caller.
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2020 00:00:00 +99999999999999999",
        "Mon, 01 Jan 2020 00:00:00 -1346712249000",
        "1" * 5000,
    ):
        assert read_retry_after_s({"retry-after": text}) is None


_NUMBERS = (st.integers(0, 60) | st.integers(10**9, 10**30)).map(str) | st.text(max_size=3)
_ZONES = st.sampled_from(["GMT", "-0000", "+9999", "-2359"]) | st.builds(str.__add__, st.sampled_from("+-"), _NUMBERS)
_DATES = st.builds(
    lambda day, month, year, time, zone: f"Mon, {day} {month} {year} {':'.join(time)} {zone}",
    _NUMBERS,
    st.sampled_from(["Jan", "Dec", "13", ""]),
    _NUMBERS,
    st.lists(_NUMBERS, min_size=1, max_size=4),
    _ZONES,
)


@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@given(st.text() | _DATES | st.floats().map(str) | st.integers().map(str))
def test_whatever_is_said_of_the_time_to_wait_is_a_time_or_nothing(text: str) -> None:
    for name in ("retry-after", "retry-after-ms"):
        wait_s = read_retry_after_s({name: text})

        assert wait_s is None or 0 <= wait_s < float("inf")
