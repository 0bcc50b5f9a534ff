"""TLS credentials for the server and its clients, from PEM files; checked here because gRPC's errors say little."""

from __future__ import annotations

import os
import pathlib
import ssl
from typing import Callable

import grpc
from absl import flags

from common.command_line import UserError


def _read(flag: str, path: str | os.PathLike) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"--{flag}={path}: {error.strerror}; name a file in PEM") from error


def _authorities(flag: str, path: str | os.PathLike) -> bytes:
    content = _read(flag, path)
    try:
        ssl.create_default_context(cadata=content.decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise UserError(f"--{flag}={path}: no certificate in PEM") from error
    return content


def _pair(certificate: str | os.PathLike | None, key: str | os.PathLike | None) -> tuple[bytes, bytes]:
    """Reads and checks a certificate chain and its private key."""
    if certificate is None or key is None:
        raise UserError("--tls_certificate and --tls_key belong together; give both, or neither")
    chain, private = _read("tls_certificate", certificate), _read("tls_key", key)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise UserError(
            f"--tls_certificate={certificate} with --tls_key={key}: not a certificate and its unencrypted private key "
            f"in PEM ({getattr(error, 'reason', None) or error})"
        ) from error
    return chain, private


def server_credentials(
    certificate: str | os.PathLike | None, key: str | os.PathLike | None, client_ca: str | os.PathLike | None
) -> grpc.ServerCredentials | None:
    """Makes a server's TLS credentials.

    Args:
      certificate: the server's certificate chain, PEM; None, together with `key`, for plain text.
      key: its private key, PEM.
      client_ca: certificate authorities, PEM; clients without a certificate from them are rejected in the handshake.

    Returns:
      The credentials; None for plain text.

    Raises:
      UserError: a file is missing or invalid, or one is given without the other.
    """
    if certificate is None and key is None:
        if client_ca is not None:
            raise UserError("--tls_client_ca needs --tls_certificate and --tls_key as well")
        return None
    chain, private = _pair(certificate, key)
    authorities = None if client_ca is None else _authorities("tls_client_ca", client_ca)
    return grpc.ssl_server_credentials([(private, chain)], authorities, authorities is not None)


def channel_credentials(
    ca: str | os.PathLike | None, certificate: str | os.PathLike | None, key: str | os.PathLike | None
) -> grpc.ChannelCredentials:
    """Makes a client's TLS credentials.

    Args:
      ca: certificate authorities to trust, PEM; None for those bundled with gRPC.
      certificate: the client's own certificate chain, PEM, for servers that require one; else None.
      key: its private key, PEM.

    Raises:
      UserError: a file is missing or invalid, or one is given without the other.
    """
    authorities = None if ca is None else _authorities("tls_ca", ca)
    if certificate is None and key is None:
        return grpc.ssl_channel_credentials(authorities)
    chain, private = _pair(certificate, key)
    return grpc.ssl_channel_credentials(authorities, private, chain)


def define_client_flags(flag_values: flags.FlagValues) -> Callable[[], grpc.ChannelCredentials | None]:
    """Defines `--tls`, `--tls_ca`, `--tls_certificate` and `--tls_key` for a client command.

    Returns:
      A function to call after the flags are parsed. It returns the credentials, None for plain text, and raises
      UserError like `channel_credentials`.
    """
    public = flags.DEFINE_bool("tls", False, "Speak TLS, and trust the public authorities.", flag_values=flag_values)
    ca = flags.DEFINE_string("tls_ca", None, "Speak TLS, and trust these authorities, PEM.", flag_values=flag_values)
    certificate = flags.DEFINE_string(
        "tls_certificate", None, "Shown to a server that asks for one, PEM.", flag_values=flag_values
    )
    key = flags.DEFINE_string("tls_key", None, "Its private key, PEM.", flag_values=flag_values)

    def credentials() -> grpc.ChannelCredentials | None:
        if not (public.value or ca.value or certificate.value or key.value):
            return None
        return channel_credentials(ca.value, certificate.value, key.value)

    return credentials
