"""Whom a server lets in: certificates of a throw-away authority, real handshakes."""

import subprocess
import sys

import numpy as np
import pytest
import trustme

from common.command_line import UserError
from serving.endpoint import tls
from serving.endpoint.endpoint import Endpoint
from serving.endpoint.model_store import ModelStore
from serving.restoring.remote import Restorer
from tests.serving.conftest import encoded, model_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """PEM files of a server, a client, their authority, and an authority that is neither's."""
    folder = tmp_path_factory.mktemp("tls")
    ours, other = trustme.CA(), trustme.CA()
    ours.cert_pem.write_to_path(folder / "ca.pem")
    other.cert_pem.write_to_path(folder / "other_ca.pem")
    for name, authority in (("server", ours), ("client", ours), ("stranger", other)):
        issued = authority.issue_cert("localhost" if name == "server" else f"{name}@example.org")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["tls", "mutual"])
def secured(request, files, identity_dir):
    """A server's address, and whether it asks for a certificate."""
    credentials = tls.server_credentials(
        files / "server.pem", files / "server.key", files / "ca.pem" if request.param else None
    )
    with (
        ModelStore([model_config("cleanplate", identity_dir)], poll_seconds=0) as store,
        Endpoint(store, "localhost", credentials=credentials) as endpoint,
    ):
        yield endpoint.address, request.param


def _shows(files, name):
    return (None, None) if name is None else (files / f"{name}.pem", files / f"{name}.key")


@pytest.mark.parametrize("shown", [None, "client", "stranger"])
def test_who_is_let_in(secured, files, photo, shown):
    address, asks = secured
    credentials = tls.channel_credentials(files / "ca.pem", *_shows(files, shown))
    with Restorer(address, credentials=credentials) as restorer:
        if not asks or shown == "client":
            np.testing.assert_array_equal(restorer.restore(photo[:20, :30]), photo[:20, :30])
        else:
            with pytest.raises(UserError, match="--tls_certificate"):
                restorer.restore(photo[:20, :30])


def test_a_client_that_speaks_no_tls_is_told(secured):
    with Restorer(secured[0]) as restorer, pytest.raises(UserError, match="--tls_ca"):
        restorer.warm_up()


def test_a_server_that_nobody_vouches_for_is_refused(secured, files):
    credentials = tls.channel_credentials(files / "other_ca.pem", *_shows(files, "client"))
    with Restorer(secured[0], credentials=credentials) as restorer:
        with pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED"):
            restorer.warm_up()


def test_the_commands_take_the_files(secured, files, photo, tmp_path):
    (tmp_path / "photo.png").write_bytes(encoded(photo[:20, :30]))
    command = [sys.executable, "-m", "serving.client", f"--server={secured[0]}", f"--tls_ca={files / 'ca.pem'}"]
    command += [f"--tls_certificate={files / 'client.pem'}", f"--tls_key={files / 'client.key'}"]
    subprocess.run([*command, str(tmp_path / "photo.png"), str(tmp_path / "out")], check=True, timeout=120)
    assert (tmp_path / "out" / "photo.png").exists()


@pytest.mark.parametrize(
    ("certificate", "key", "ca", "message"),
    [
        ("server.pem", None, None, "--tls_certificate and --tls_key belong together"),
        ("absent.pem", "server.key", None, "--tls_certificate=.*absent.pem: No such file"),
        ("server.pem", "client.key", None, "--tls_key=.*client.key.*KEY_VALUES_MISMATCH"),
        ("server.key", "server.key", None, "not a certificate and its unencrypted private key"),
        ("server.pem", "server.key", "server.key", "--tls_client_ca=.*server.key: no certificate in PEM"),
        (None, None, "ca.pem", "--tls_client_ca needs --tls_certificate"),
    ],
)
def test_files_that_do_not_serve_are_named(files, certificate, key, ca, message):
    paths = [None if name is None else files / name for name in (certificate, key, ca)]
    with pytest.raises(UserError, match=message):
        tls.server_credentials(*paths)
