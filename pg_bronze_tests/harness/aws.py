"""AWS on a loopback address: S3 by moto that accepts the current keys only, and every source of such keys."""

import json
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ROLE = "worker"
_ERROR = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>planted</Message></Error>"
_ASSUMED = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{AccessKeyId}</AccessKeyId>
<SecretAccessKey>{SecretAccessKey}</SecretAccessKey><SessionToken>{Token}</SessionToken>
<Expiration>{Expiration}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


class Aws:
    """The stand-in. ``rotate`` makes new keys, and S3 rejects the ones before as expired.

    Attributes:
        asked: The paths of the requests for credentials, in order.
        lifetime: How long the keys are valid that the sources return; botocore renews them ten minutes before.
        identity: The content of the web identity token that STS accepts.
        is_down: The sources of credentials answer with an error.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.lifetime = timedelta(hours=1)
        self.identity = secrets.token_hex(8)
        self.is_down = False
        self.code = "ExpiredToken"
        self._backend = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Silent)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.rotate()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def rotate(self) -> None:
        number = secrets.token_hex(4)
        self.access_key, self.secret_key, self.token = f"ASIA{number}", f"pl4nted-secret-{number}", f"pl4nted-{number}"

    @property
    def keys(self) -> dict[str, str]:
        """The current keys, by the names that ``credential_process`` and the metadata have for them."""
        expiration = datetime.now(UTC) + self.lifetime
        return {
            "AccessKeyId": self.access_key,
            "SecretAccessKey": self.secret_key,
            "Token": self.token,
            "SessionToken": self.token,
            "Expiration": f"{expiration:%Y-%m-%dT%H:%M:%SZ}",
        }

    def _serve(self, request: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = request["PATH_INFO"]
        answer: Callable[[WSGIEnvironment], tuple[str, str]] | None = None
        if path == "/container" or path.startswith("/latest/"):
            answer = self._metadata
        elif path == "/" and request["REQUEST_METHOD"] == "POST":
            answer = self._assume_role
        elif not self._is_signed_by_current_keys(request):
            start("400 Bad Request", [("Content-Type", "application/xml")])
            return [b"" if request["REQUEST_METHOD"] == "HEAD" else _ERROR.format(code=self.code).encode()]
        if answer is None:
            response: Iterable[bytes] = self._backend(request, start)
            return response
        status, text = answer(request)
        start(status, [("Content-Type", "text/xml" if text.startswith("<") else "application/json")])
        return [text.encode()]

    def _is_signed_by_current_keys(self, request: WSGIEnvironment) -> bool:
        pattern = r"AWS4-HMAC-SHA256 Credential=([^/]+)/[^/]+/([^/]+)/.*SignedHeaders=([^,]+), *Signature=(.+)"
        found = re.fullmatch(pattern, request.get("HTTP_AUTHORIZATION", ""))
        if not found or found[1] != self.access_key or request.get("HTTP_X_AMZ_SECURITY_TOKEN") != self.token:
            return False
        headers = {
            name: request.get(f"HTTP_{name.upper().replace('-', '_')}") or request[name.upper().replace("-", "_")]
            for name in found[3].split(";")
        }
        made = AWSRequest(request["REQUEST_METHOD"], f"{self.url}{request['RAW_URI']}", headers)
        made.context["timestamp"] = headers["x-amz-date"]
        signer = S3SigV4Auth(Credentials(self.access_key, self.secret_key, self.token), "s3", found[2])
        expected: str = signer.signature(signer.string_to_sign(made, signer.canonical_request(made)), made)
        return found[4] == expected

    def _metadata(self, request: WSGIEnvironment) -> tuple[str, str]:
        path = request["PATH_INFO"]
        self.asked.append(path)
        if self.is_down:
            return "500 Internal Server Error", "pl4nted"
        if path == "/latest/api/token":
            return "200 OK", "token of the metadata"
        if path.endswith("/security-credentials/"):
            return "200 OK", ROLE
        return "200 OK", json.dumps({"Code": "Success", **self.keys})

    def _assume_role(self, request: WSGIEnvironment) -> tuple[str, str]:
        body = request["wsgi.input"].read(int(request["CONTENT_LENGTH"])).decode()
        self.asked.append("sts")
        if self.is_down or parse_qs(body)["WebIdentityToken"] != [self.identity]:
            return "403 Forbidden", f"<ErrorResponse>{_ERROR.format(code='InvalidIdentityToken')[21:]}</ErrorResponse>"
        return "200 OK", _ASSUMED.format(**self.keys)


class _Silent(WSGIRequestHandler):
    def log_request(self, *_: Any) -> None:
        pass


@contextmanager
def running_aws() -> Iterator[Aws]:
    aws = Aws()
    yield aws
    aws.close()
