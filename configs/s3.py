"""Two things that Beam's S3 file system lacks: a client that is kept, and objects without content.

Beam makes a client of boto3's for every file that it opens, lists or asks for, which takes longer than to fetch a
photo; and it sends every object in parts, of which S3 wants at least one.
"""

import contextlib
import functools
from types import SimpleNamespace
from typing import Any, BinaryIO

from apache_beam.io.filesystem import FileSystem


@functools.cache
def _client(**arguments: Any) -> Any:
    """A client of boto3's for these arguments; threads may share it."""
    import boto3

    return boto3.session.Session().client(**arguments)


def keep_clients() -> None:
    """From now on Beam takes one client for the same options. Does nothing where Beam was installed without boto3."""
    try:
        from apache_beam.io.aws.clients.s3 import boto3_client
    except ImportError:
        return
    # Beam's own class keeps its state, a download's place, for itself; only what it gets its client from is replaced.
    session = SimpleNamespace(client=_client)
    boto3_client.boto3 = SimpleNamespace(session=SimpleNamespace(Session=lambda: session))


def close_empty(file: BinaryIO, path: str, filesystem: FileSystem) -> None:
    """Ends the upload of an object into which nothing was written, and makes it."""
    from apache_beam.io.aws import s3io
    from apache_beam.io.aws.clients.s3.messages import S3ClientError

    with contextlib.suppress(S3ClientError):
        file.close()
    bucket, key = s3io.parse_s3_path(path)
    s3io.S3IO(options=filesystem._options).client.client.put_object(Bucket=bucket, Key=key)
