"""Who may ask: this page in a browser on this machine, with the token of this run; all else is refused in a line.

The token is the first part of every path, so that the page's own relative addresses carry it. Host and Origin are
checked, so that no other site can use the server through the browser (DNS rebinding, cross-site requests).
"""

import secrets
from dataclasses import dataclass, field

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
OWN = ("same-origin", "none")  # what a browser says of a request of the page itself, or of an address typed in


@dataclass
class Guard:
    """An ASGI application that lets through to `app` what may ask, with the token taken off the path."""

    app: object
    port: int
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.port}/{self.token}/"

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refusal = self.refusal(scope)
        if refusal and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        elif refusal:
            await self._refuse(send, *refusal)
        else:
            path = scope["path"].removeprefix(f"/{self.token}")
            await self.app({**scope, "path": path, "raw_path": path.encode()}, receive, _with_headers(send))

    def refusal(self, scope) -> tuple[int, str] | None:
        """(status, why) for what may not ask, or may not ask so."""
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        found = dict(headers)
        if [value for name, value in headers if name == "host"] not in [[f"{n}:{self.port}"] for n in NAMES]:
            return 421, "not this host"
        origin = found.get("origin")
        if origin is not None and origin not in [f"http://{name}:{self.port}" for name in NAMES]:
            return 403, "not from another site"
        if found.get("sec-fetch-site", "none") not in OWN:
            return 403, "not from another site"
        first = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not secrets.compare_digest(first.encode(), self.token.encode()):
            return 403, "the address needs the token that the workbench printed when it started"
        if scope["type"] == "websocket":
            return None if origin else (403, "not from another site")
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "only GET"
        if "transfer-encoding" in found or found.get("content-length", "0") != "0":
            return 413, "no content is taken"
        return None

    async def _refuse(self, send, status: int, why: str) -> None:
        body = f"{why}\n".encode()
        headers = {**HEADERS, "content-type": "text/plain; charset=utf-8", "content-length": str(len(body))}
        coded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": coded})
        await send({"type": "http.response.body", "body": body})


def _with_headers(send):
    async def added(event):
        if event["type"] == "http.response.start":
            known = {name.lower() for name, _ in event["headers"]}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in known]
            event = {**event, "headers": [*event["headers"], *more]}
        await send(event)

    return added
