"""TLS by certificate files: looked at before anything is applied, and read again when they are new."""

from __future__ import annotations

import ssl
from pathlib import Path

from attrs import frozen

from stackconf.errors import InvalidConfig


@frozen
class Tls:
    """The files of a certificate (with those that sign it) and of its key. With an `authority` who asks
    must have a certificate that it signed. `ciphers` are in OpenSSL's form; its own, where empty.
    """

    certificate: Path
    key: Path
    authority: Path | None = None
    ciphers: str = ""

    def check(self) -> None:
        """Raise `InvalidConfig` where they cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.load(context)
        if self.authority is not None:
            try:
                context.load_verify_locations(self.authority)
            except OSError as error:
                raise InvalidConfig(f"{self.authority}: no certificates as PEM ({error.strerror})") from error
        try:
            context.set_ciphers(self.ciphers or "DEFAULT")
        except ssl.SSLError as error:
            raise InvalidConfig(f"`{self.ciphers}` are no ciphers that OpenSSL knows") from error

    def load(self, context: ssl.SSLContext) -> None:
        """Have a context use them. Raises `InvalidConfig`, and has not touched it then."""
        for each in (self.certificate, self.key):
            try:
                each.read_bytes()
            except OSError as error:
                raise InvalidConfig(f"{each}: {error.strerror}") from error
        for target in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
            try:
                target.load_cert_chain(self.certificate, self.key, password=_no_passphrase)
            except ssl.SSLError as error:
                raise InvalidConfig(f"{self.certificate} and {self.key}: {self._why(error)}") from error

    def _why(self, error: ssl.SSLError) -> str:
        if error.reason == "KEY_VALUES_MISMATCH":
            return "the key is not that of the certificate"
        if b"ENCRYPTED" in self.key.read_bytes():
            return "the key needs a passphrase; give one without"
        return "not a certificate and its key as PEM"


def _no_passphrase() -> str:
    return ""
