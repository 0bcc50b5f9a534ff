"""A local server that speaks S3."""

import contextlib
import logging
from types import SimpleNamespace

import pytest

_KEY = "testing"


@contextlib.contextmanager
def s3_server(bucket="archive"):
    """Starts moto's server on a free port with one empty bucket.

    Yields:
      `url` of the bucket, `endpoint` of the server, `flags`, Beam's, that reach it, and `client`, boto3's.
    """
    server_module = pytest.importorskip("moto.server", reason="no moto; pip install 'moto[server]'")
    boto3 = pytest.importorskip("boto3", reason="no boto3; pip install 'cleanplate[aws]'")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        options = {"endpoint_url": endpoint, "region_name": "us-east-1"}
        options.update(aws_access_key_id=_KEY, aws_secret_access_key=_KEY)
        client = boto3.client("s3", **options)
        client.create_bucket(Bucket=bucket)
        flags = [
            f"--s3_endpoint_url={endpoint}",
            f"--s3_access_key_id={_KEY}",
            f"--s3_secret_access_key={_KEY}",
            "--s3_region_name=us-east-1",
        ]
        yield SimpleNamespace(url=f"s3://{bucket}", bucket=bucket, endpoint=endpoint, flags=flags, client=client)
    finally:
        server.stop()
