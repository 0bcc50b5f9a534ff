"""Three things that Beam's S3 file system lacks: a client that is kept, objects without content, and quick errors.

Beam makes a client of boto3's for every file that it opens, lists or asks for, which takes longer than to fetch a
photo; it sends every object in parts, of which S3 wants at least one; and where there are no credentials, or no server,
it asks again for minutes.
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
    """A client of boto3's for these arguments; threads may share it."""
    import boto3

    return boto3.session.Session().client(**arguments)


def keep_clients() -> None:
    """From now on Beam takes one client for the same options. Does nothing where Beam was installed without boto3."""
    try:
        from apache_beam.io.aws.clients.s3 import boto3_client
    except ImportError:
        return
    if boto3_client.boto3 is None:
        return
    # Beam's own class keeps its state, a download's place, for itself; only what it gets its client from is replaced.
    session = SimpleNamespace(client=_client)
    boto3_client.boto3 = SimpleNamespace(session=SimpleNamespace(Session=lambda: session))


def fault(path: str, filesystem: FileSystem, listed: bool) -> str:
    """What stands in the way of reading a bucket, with the remedy; empty if nothing does.

    Args:
      path: a URL in the bucket.
      filesystem: Beam's, with its options.
      listed: whether being allowed to list it is needed.
    """
    from apache_beam.io.aws import s3io

    bucket, prefix = s3io.parse_s3_path(path, object_optional=True)
    try:
        client = s3io.S3IO(options=filesystem._options).client.client
    except AssertionError:  # Beam's word for it
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
    """Ends the upload of an object into which nothing was written, and makes it."""
    from apache_beam.io.aws import s3io
    from apache_beam.io.aws.clients.s3.messages import S3ClientError

    with contextlib.suppress(S3ClientError):
        file.close()
    bucket, key = s3io.parse_s3_path(path)
    s3io.S3IO(options=filesystem._options).client.client.put_object(Bucket=bucket, Key=key)
