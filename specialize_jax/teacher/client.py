"""One request to an OpenAI-compatible server, again and again until it is answered.

| what comes                                         | what is done                             |
|----------------------------------------------------|------------------------------------------|
| 200 and the JSON of a completion                   | returned                                 |
| 408, 409, 425, 429, 5xx; a timeout; a cut body;    | asked again: after `Retry-After` where   |
| JSON that is broken or no completion; no           | it is sent, else after a time that       |
| connection, once there was one                     | doubles, times a random factor           |
| any other status, no quota left, no connection     | `Refused`, with what to change           |

The key comes from OPENAI_API_KEY, is sent in a header and nowhere else: whatever a server sends
back is freed of it first. Words of few letters (`none`, `x`), which local servers are given as
keys, stay: they stand in answers and in names of fields too.
"""

import asyncio
import datetime
import email.utils
import importlib
import json
import random
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from specialize_jax.teacher.wire import BadReply

Read = TypeVar("Read")

_AGAIN = {408, 409, 425, 429}
_LONGEST_WAIT = 60.0  # seconds between two attempts, where the server names no time
_LONG_REST = 30.0  # seconds: a person may want to know
_SHORTEST_SECRET = 8  # letters; no key of a service has fewer
_HELP = {
    401: "the server refuses the key: set OPENAI_API_KEY",
    403: "the server refuses the key: set OPENAI_API_KEY to one that may use this model",
    404: "no such path or model: look at --base_url (it usually ends in /v1) and --model",
    405: "no such path: look at --base_url (it usually ends in /v1)",
}


class Refused(ValueError):
    """The server will not answer, however often it is asked.

    Attributes:
      status: of HTTP; None where there was none.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


class Transient(Exception):
    """An attempt failed, and another may not.

    Attributes:
      reason: a word for it, to be counted.
      wait: seconds after which the server wants to be asked again; None where it does not say.
      paid: whether the server may have answered, and charged for it.
      said: what came instead, in words.
    """

    def __init__(
        self, reason: str, *, wait: float | None = None, paid: bool = False, said: str = ""
    ):
        super().__init__(f"{reason} ({said})" if said else reason)
        self.reason, self.wait, self.paid, self.said = reason, wait, paid, said


def public(url: str) -> str:
    """Returns a URL without what may be secret: user, password, query, fragment.

    Raises:
      ValueError: it is not one of http or https.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"--base_url: not a URL: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("--base_url: expected http://HOST[:PORT]/v1 or https://..., got no such")
    netloc = f"[{host}]" if ":" in host else host
    netloc += f":{port}" if port else ""
    return urllib.parse.urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def retry_after(value: str | None, now: datetime.datetime) -> float | None:
    """Returns the seconds that a `Retry-After` header asks for; None where it says nothing.

    >>> now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    >>> retry_after("2.5", now), retry_after("Thu, 01 Jan 2026 00:00:09 GMT", now)
    (2.5, 9.0)

    Args:
      value: seconds, or a date of HTTP.
      now: the present.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
        return max(seconds, 0.0) if seconds < float("inf") else None
    except ValueError:
        pass
    try:
        then = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    return max((then - now).total_seconds(), 0.0)


class Pace:
    """When the next request may start: not before its turn, nor while the server wants a rest.

    Args:
      per_minute: requests a minute at most; None for no limit.
    """

    def __init__(self, per_minute: float | None = None):
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    def rest(self, seconds: float) -> None:
        """Lets no request start for some seconds."""
        self._next = max(self._next, time.monotonic() + seconds)

    async def turn(self) -> None:
        """Waits for one's turn."""
        while (wait := self._next - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        self._next = max(self._next, time.monotonic()) + self._gap


class Client:
    """A server, and how it is asked.

    Args:
      base_url: as "http://localhost:8000/v1".
      key: sent as a bearer token; None sends none.
      timeout: seconds for a whole attempt.
      attempts: of a request at most.
      pace: when requests may start.
      connections: open at one time, at most.
      say: told where the server asks for a long rest, and of the first failure of each kind.

    Attributes:
      retries: attempts that failed, by reason.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        timeout: float,
        attempts: int,
        pace: Pace,
        connections: int,
        say: Callable[[str], None] = lambda _: None,
    ):
        try:
            self._http = importlib.import_module("httpx2")
        except ImportError as error:
            raise ValueError(
                "asking a server needs the package httpx2: pip install 'specialize-jax[teacher]'"
            ) from error
        self.url = public(base_url)
        self._base, self._key = base_url.rstrip("/"), key
        self._timeout, self._attempts, self._pace = timeout, attempts, pace
        self._connected, self._say = False, say
        self.retries: dict[str, int] = {}
        self._client = self._http.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=self._http.Timeout(timeout, connect=min(timeout, 30.0)),
            limits=self._http.Limits(
                max_connections=connections, max_keepalive_connections=connections
            ),
        )

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def ask(
        self,
        path: str,
        payload: Mapping[str, Any],
        read: Callable[[Any], Read],
        lost: Callable[[str], bool | None],
    ) -> tuple[str, Read]:
        """Returns the body of the reply, and what `read` makes of it.

        Args:
          path: below the base URL, as "/completions".
          payload: the request.
          read: takes the parsed body; raises `wire.BadReply` where asking again may help.
          lost: called with a word for each attempt that may have been charged for nothing; False
            ends the attempts.

        Raises:
          Refused: the server will not answer.
          Transient: the last attempt that was allowed failed.
        """
        content = json.dumps(payload).encode()
        for attempt in range(self._attempts):
            await self._pace.turn()
            try:
                return await self._attempt(path, content, read)
            except asyncio.CancelledError:
                lost("interrupted")
                raise
            except Transient as error:
                self._count(error)
                is_last = error.paid and lost(error.reason) is False
                if is_last or attempt + 1 == self._attempts:
                    raise
                await self._wait(error, attempt)
        raise AssertionError("no attempt was allowed")

    def _count(self, error: Transient) -> None:
        if error.reason not in self.retries:
            self._say(f"{self.url}: an attempt failed: {error}")
        self.retries[error.reason] = self.retries.get(error.reason, 0) + 1

    async def _wait(self, error: Transient, attempt: int) -> None:
        if error.wait is not None:
            if error.wait > _LONG_REST:
                self._say(f"{self.url} ({error.reason}) asks to wait {error.wait:.0f} s")
            self._pace.rest(error.wait)
            # Those that were turned away together do not come back together.
            await asyncio.sleep(error.wait + random.uniform(0, 0.1 + 0.1 * error.wait))
        else:
            await asyncio.sleep(min(_LONGEST_WAIT, 0.25 * 2**attempt) * random.uniform(0.5, 1.5))

    async def _attempt(
        self, path: str, content: bytes, read: Callable[[Any], Read]
    ) -> tuple[str, Read]:
        http = self._http
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._client.post(
                    self._base + path,
                    content=content,
                    headers={"Content-Type": "application/json"},
                )
        except (TimeoutError, http.ReadTimeout, http.WriteTimeout, http.PoolTimeout):
            raise Transient("timeout", paid=True) from None
        except (http.ConnectError, http.ConnectTimeout) as error:
            if not self._connected:
                raise Refused(self._clean(f"cannot reach {self.url}: {error}")) from None
            raise Transient("no connection") from None
        except (http.InvalidURL, http.UnsupportedProtocol) as error:
            raise Refused(self._clean(f"--base_url: {error}")) from None
        except (http.TransportError, http.DecodingError) as error:
            raise Transient("cut body", paid=True, said=self._clean(str(error))) from None
        self._connected = True
        if reply.status_code != 200:
            raise self._failure(reply)
        try:
            body = reply.content.decode()
            made = read(json.loads(body))
        except BadReply as error:
            said = self._clean(str(error))
            raise Transient("no completion", paid=True, said=said) from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            said = self._clean(_message(reply.text))[:80]
            raise Transient("broken JSON", paid=True, said=said) from None
        return self._clean(body), made

    def _failure(self, reply: Any) -> Exception:
        """Returns the error of a reply that is none."""
        status = reply.status_code
        said = self._clean(_message(reply.text))
        if (status in _AGAIN or status >= 500) and "insufficient_quota" not in reply.text:
            header = reply.headers.get("Retry-After")
            wait = retry_after(header, datetime.datetime.now(datetime.UTC))
            return Transient(f"status {status}", wait=wait, said=said)
        if 300 <= status < 400:
            said = f"it points to another place, {public_or_none(reply.headers.get('Location'))}"
        help_ = f"{_HELP[status]}; " if status in _HELP else ""
        if "logprobs" in said:
            help_ = "--top_logprobs is perhaps above its limit; "
        return Refused(f"{self.url} answers {status}: {help_}it says: {said}", status)

    async def models(self) -> list[str]:
        """Returns the names of the server's models; none where it does not tell."""
        try:
            reply = await self._client.get(self._base + "/models")
            return [str(model["id"]) for model in reply.json()["data"]]
        except (self._http.HTTPError, ValueError, LookupError, TypeError):
            return []

    def _clean(self, text: str) -> str:
        if self._key is None or len(self._key) < _SHORTEST_SECRET:
            return text
        return text.replace(self._key, "***")


def public_or_none(url: str | None) -> str:
    """Returns a URL without secrets, or words where it is none."""
    try:
        return public(url or "")
    except ValueError:
        return "which it does not name"


def _message(text: str) -> str:
    """Returns what a server says of an error, on one line of at most 300 characters."""
    try:
        value = json.loads(text)
        error = value.get("error", value)
        said = error["message"] if isinstance(error, dict) else error
    except (ValueError, LookupError, AttributeError):
        said = text
    return " ".join(str(said).split())[:300] or "nothing"
