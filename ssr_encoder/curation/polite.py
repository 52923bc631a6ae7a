"""Requests that spare hosts and cannot be held up: what urllib's own opener lacks for fetching pictures at large."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from http.client import IncompleteRead
from urllib.parse import urlsplit

_PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers after which asking again makes sense
_HANDLERS = (
    urllib.request.ProxyHandler,
    urllib.request.UnknownHandler,
    urllib.request.HTTPHandler,
    urllib.request.HTTPSHandler,
    urllib.request.HTTPDefaultErrorHandler,
    urllib.request.HTTPRedirectHandler,
    urllib.request.HTTPErrorProcessor,
)


class Final(OSError):
    """An answer that will be the same next time: a body beyond the limits, or one that we may not use."""


class Opener:
    """For ``urllib.request.install_opener``: opens http and https only, so many addresses of a host at once.

    An address that failed for good is not asked again; one that failed in passing, only after a while that doubles
    (or as long as the host's Retry-After says, up to ``LONGEST`` seconds). Bodies are bounded in size and in time.
    """

    LONGEST = 30.0

    def __init__(self, limits):
        self.limits = limits
        # Beside, not below: urllib opens the target of a redirect through the director, which must not wait here again.
        self._director = urllib.request.OpenerDirector()
        for handler in _HANDLERS:
            self._director.add_handler(handler())
        self._lock = threading.Lock()
        self._hosts = defaultdict(lambda: threading.Semaphore(limits.per_host))
        self._failures: dict[str, tuple[int, float, Exception | None]] = {}  # attempts, when to ask, final answer

    def open(self, request, data=None, timeout=None):
        """As OpenerDirector.open; gives a `Body`, which must be closed.

        Raises:
            OSError (URLError, HTTPError, TimeoutError): it cannot be had, now or ever.
        """
        url = request.full_url
        _, when, final = self._failures.get(url, (0, 0.0, None))
        if final is not None:
            raise final
        time.sleep(max(0.0, when - time.monotonic()))
        with self._lock:
            host = self._hosts[urlsplit(url).hostname]
        host.acquire()
        try:
            return Body(self._director.open(request, data, timeout), host, self.limits, lambda e: self._failed(url, e))
        except BaseException as error:
            host.release()
            self._failed(url, error)
            raise

    def _failed(self, url: str, error: BaseException) -> None:
        attempts = self._failures.get(url, (0, 0.0, None))[0] + 1
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            final = error.code not in _PASSING
        else:
            final = isinstance(error, (Final, ValueError)) or "unknown url type" in str(error)
        wait = min(self.LONGEST, max(_retry_after(error), 0.5 * 2 ** (attempts - 1)))
        self._failures[url] = (attempts, time.monotonic() + wait, error if final else None)


class Body:
    """A response as img2dataset uses it: a context with ``headers`` and ``read()``."""

    def __init__(self, response, host: threading.Semaphore, limits, failed):
        self.response, self.headers = response, response.headers
        self._host, self._limits, self._failed = host, limits, failed
        self._asked = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.response.close()
        self._host.release()
        if not self._asked:  # img2dataset looks at the headers first, and would come back
            self._failed(Final("Use of image disallowed by X-Robots-Tag directive"))

    def read(self) -> bytes:
        """All of it.

        Raises:
            OSError, IncompleteRead: it is too large, too slow, or ends early.
        """
        self._asked = True
        try:
            return self._read()
        except BaseException as error:
            self._failed(error)
            raise

    def _read(self) -> bytes:
        end = time.monotonic() + self._limits.deadline
        parts, size = [], 0
        while part := self.response.read1(1 << 16):  # what has come, so that a drip cannot outlast the deadline
            parts.append(part)
            size += len(part)
            if size > self._limits.max_bytes:
                raise Final(f"larger than {self._limits.max_bytes} bytes")
            if time.monotonic() > end:
                raise Final(f"not done after {self._limits.deadline:g} seconds")
        if self.response.length:  # what is still missing of Content-Length
            raise IncompleteRead(b"".join(parts), self.response.length)
        return b"".join(parts)


def _retry_after(error: BaseException) -> float:
    """Seconds that the host asks to wait, 0 if it does not (or gives a date)."""
    value = (getattr(error, "headers", None) or {}).get("Retry-After") or ""
    return float(value) if value.isdecimal() else 0.0
