"""A token service as the distribution registry wants it, for `Basic` credentials.

https://distribution.github.io/distribution/spec/auth/jwt/ says what is in a
token: RS256, the signer's certificate as ``x5c``, what is granted as ``access``.

Run: ``python -m tests.netns.tokens SETTINGS``, a JSON file with the fields of `Settings`.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import jwt
from aiohttp import BasicAuth, web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

LIFETIME = 300  # seconds


@dataclass(frozen=True)
class Settings:
    """Paths are those of PEM files; every user of ``passwords`` may do everything."""

    address: str
    port: int
    certificate: str
    key: str
    signer: str
    signer_key: str
    issuer: str
    passwords: dict[str, str]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))


def parse_scope(scope: str) -> dict[str, object]:
    """Read ``repository:name/with/parts:pull,push``; the name may hold a port's colon."""
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return {"type": kind, "name": name, "actions": actions.split(",")}


class Service:
    """Checks who asks and signs what is asked for."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key = Path(settings.signer_key).read_bytes()
        signer = x509.load_pem_x509_certificate(Path(settings.signer).read_bytes())
        self._chain = [base64.b64encode(signer.public_bytes(Encoding.DER)).decode()]

    async def get_token(self, request: web.Request) -> web.Response:
        user = self._user(request)
        print(f"token for {user or 'nobody'}: {request.query_string}", flush=True)  # noqa: T201 - its log
        if user is None:
            return web.json_response(
                {"errors": [{"code": "UNAUTHORIZED"}]},
                status=401,
                headers={"WWW-Authenticate": 'Basic realm="tokens"'},
            )
        token = self._sign(user, request.query["service"], request.query.getall("scope", []))
        return web.json_response({"token": token, "access_token": token, "expires_in": LIFETIME})

    def _user(self, request: web.Request) -> str | None:
        try:
            given = BasicAuth.decode(request.headers.get("Authorization", ""))
        except ValueError:
            return None
        return given.login if self._settings.passwords.get(given.login) == given.password else None

    def _sign(self, user: str, service: str, scopes: list[str]) -> str:
        now = int(time.time())
        claims = {
            "iss": self._settings.issuer,
            "sub": user,
            "aud": service,
            "iat": now,
            "nbf": now - 10,
            "exp": now + LIFETIME,
            "jti": uuid.uuid4().hex,
            "access": [parse_scope(scope) for scope in " ".join(scopes).split()],
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"x5c": self._chain})


def main(path: str) -> None:
    """Serve HTTPS until SIGTERM."""
    settings = Settings(**json.loads(Path(path).read_text()))
    app = web.Application()
    app.router.add_get("/auth", Service(settings).get_token)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.certificate, settings.key)
    web.run_app(app, host=settings.address, port=settings.port, ssl_context=context, access_log=None)


if __name__ == "__main__":
    main(sys.argv[1])
