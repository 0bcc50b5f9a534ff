"""Three things that Beam's S3 file system lacks: a reused client, empty objects, and quick errors.

Beam creates a boto3 client for every file that it opens, lists or looks up, which takes longer than fetching a photo.
It uploads every object in parts, and S3 requires at least one. Without credentials or a reachable server, it retries
for minutes.
"""

import contextlib
import functools
from types import SimpleNamespace
from typing import Any, BinaryIO

from apache_beam.io.filesystem import FileSystem

_REMEDY = (
    "credentials are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the profile that AWS_PROFILE names, a server that "
    "is not Amazon's is AWS_ENDPOINT_URL"
)


@functools.cache
def _client(**arguments: Any) -> Any:
    """Returns the cached boto3 client for these arguments; it is safe to share between threads."""
    import boto3

    return boto3.session.Session().client(**arguments)


def keep_clients() -> None:
    """Makes Beam reuse one client per set of options. Does nothing if Beam was installed without boto3."""
    try:
        from apache_beam.io.aws.clients.s3 import boto3_client
    except ImportError:
        return
    if boto3_client.boto3 is None:
        return
    # Beam's own client class holds per-download state, so only the source of its boto3 client is replaced.
    session = SimpleNamespace(client=_client)
    boto3_client.boto3 = SimpleNamespace(session=SimpleNamespace(Session=lambda: session))


def fault(path: str, filesystem: FileSystem, listed: bool) -> str:
    """Returns what prevents reading a bucket, with the remedy; empty if nothing does.

    Args:
      path: a URL in the bucket.
      filesystem: Beam's file system, with its options.
      listed: whether permission to list the bucket is needed.
    """
    from apache_beam.io.aws import s3io

    bucket, prefix = s3io.parse_s3_path(path, object_optional=True)
    try:
        client = s3io.S3IO(options=filesystem._options).client.client
    except AssertionError:  # raised by Beam if boto3 is missing
        return "boto3 is missing; pip install 'apache-beam[aws]'"
    from botocore import exceptions

    try:
        client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied" or listed:
            return f"{error}; {_REMEDY}"
    except exceptions.BotoCoreError as error:
        return f"{error}; {_REMEDY}"
    return ""


def close_empty(file: BinaryIO, path: str, filesystem: FileSystem) -> None:
    """Closes an upload into which nothing was written, and creates the empty object."""
    from apache_beam.io.aws import s3io
    from apache_beam.io.aws.clients.s3.messages import S3ClientError

    with contextlib.suppress(S3ClientError):
        file.close()
    bucket, key = s3io.parse_s3_path(path)
    s3io.S3IO(options=filesystem._options).client.client.put_object(Bucket=bucket, Key=key)
