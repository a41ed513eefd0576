"""Who may ask the server: the token, the names of hosts and origins, the methods; and the headers of its answers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colordim.errors import ArgumentError
from colordim.web.answers import to_json

__all__ = ["HEADERS", "Access", "Guard", "failure"]

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}

#: Bytes of a path with its query, and of a header.
_MOST_TARGET = 8192
_MOST_HEADER = 8192
_MOST_PARAMETERS = 32

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Parameters
    ----------
    port : int
        Which the server listens on.
    hosts : sequence of str
        Names under which it may be reached beside those of the loopback address, with a port or with any.
    origins : sequence of str
        Of a proxy, such as ``https://hub.example.org``, whose host is allowed then too.
    prefix : str
        Path under which a proxy shows the server, such as ``/user/me/proxy/8765``.
    token : str

    Raises
    ------
    ArgumentError
        If an origin, a host or the prefix is none.
    """

    port: int
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    prefix: str = ""
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def __post_init__(self) -> None:
        for origin in self.origins:
            if not re.fullmatch(r"https?://[\w.-]+(:\d+)?", origin, re.ASCII):
                raise ArgumentError(
                    f"{origin!r} is no origin: give scheme and host without a path, as https://hub.example.org.",
                    page="view#behind-a-proxy",
                )
        for host in self.hosts:
            if not re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d+)?", host, re.ASCII):
                raise ArgumentError(
                    f"{host!r} is no name of a host: give it without scheme and path, as node17.",
                    page="view#behind-a-proxy",
                )
        if self.prefix and not re.fullmatch(r"(/[\w.~@%+-]+)+", self.prefix, re.ASCII):
            raise ArgumentError(
                f"{self.prefix!r} is no path prefix: give it as /user/me/proxy/8765.", page="view#behind-a-proxy"
            )

    def allows_host(self, host: str) -> bool:
        """Whether a Host header names this server: another site's name may lead here too (DNS rebinding)."""
        host = host.lower()
        own = {f"{name}:{self.port}" for name in _LOOPBACK}
        named = {name.lower() for name in (*self.hosts, *(urlsplit(origin).netloc for origin in self.origins))}
        return host in own or host in named or re.sub(r":\d+$", "", host) in named

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether a page of this origin may ask; `host` is the Host header, which is allowed."""
        return origin in self.origins or origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")

    def knows(self, token: str | None) -> bool:
        """Whether it is the token, in a time that says nothing of where they differ."""
        return token is not None and secrets.compare_digest(token.encode("utf-8", "replace"), self.token.encode())


class Guard:
    """Refuses who may not ask, takes the prefix off the path, and puts :data:`HEADERS` on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # nothing else is served
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(raw=message["headers"]).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        access = self._access
        if scope["method"] not in ("GET", "HEAD"):
            return failure(405, "this server only reads: ask with GET.", {"allow": "GET, HEAD"})
        query: bytes = scope["query_string"]
        if len(scope.get("raw_path") or b"") + len(query) > _MOST_TARGET:
            return failure(414, f"the address is longer than {_MOST_TARGET} bytes.")
        if any(len(name) + len(value) > _MOST_HEADER for name, value in scope["headers"]):
            return failure(431, f"a header is longer than {_MOST_HEADER} bytes.")
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not access.allows_host(hosts[0]):
            return failure(403, "this server does not go by that name: allow it with --allow-host.")
        if access.prefix:
            path: str = scope["path"]
            if path == access.prefix:
                return RedirectResponse(f"{access.prefix}/" + (f"?{query.decode('latin-1')}" if query else ""))
            if path.startswith(f"{access.prefix}/"):  # a proxy may strip it or not
                scope["path"] = path[len(access.prefix) :]
        origin = headers.get("origin")
        if origin is not None and not access.allows_origin(origin, hosts[0]):
            return failure(403, "pages of another origin may not ask: allow it with --allow-origin.")
        if not scope["path"].startswith("/api/"):
            return None
        if headers.get("sec-fetch-site", "").lower() == "cross-site":
            return failure(403, "pages of another site may not ask.")
        try:
            pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
        except ValueError:
            return failure(400, f"there are more than {_MOST_PARAMETERS} parameters.")
        parameters = dict(pairs)
        if len(parameters) != len(pairs):
            return failure(400, "a parameter is given twice.")
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if not access.knows(bearer if kind.lower() == "bearer" else parameters.get("token")):
            return failure(401, "the token is missing or wrong: open the link that colordim view has printed.")
        return None


def failure(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that says in a sentence why there is none."""
    return Response(to_json({"error": sentence}), status, headers, media_type="application/json")
