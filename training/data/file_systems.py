"""Datasets at a URL: loads the file system for its scheme, or says before the first step what is missing.

    gs://     built into TensorFlow; uses Google's application default credentials
    s3://     from tensorflow-io; uses AWS's environment variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION,
              and AWS_ENDPOINT_URL for a server that is not Amazon's

A folder on a local disk needs none of this.
"""

from __future__ import annotations

import ctypes
import functools
import os

import tensorflow as tf

from common.command_line import UserError

_INSTALL = "pip install 'cleanplate[s3]'"
# By scheme: the command that copies the dataset to a local disk instead.
_COPY = {"s3": ", aws s3 sync {0} FOLDER", "gs": ", gcloud storage rsync --recursive {0} FOLDER"}


@functools.cache
def _skip_destructors() -> None:
    """Makes this process exit without running C++ destructors; its exit code is kept.

    In tensorflow-io 0.35 to 0.37 the destructor of the S3 file system aborts the process, even after a successful run
    (github.com/tensorflow/io/issues/1912). By then Python has already closed everything of its own.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc only; it passes the exit code to the handler
        libc.on_exit(libc._exit, None)


def _load_s3() -> None:
    # S3_ENDPOINT is TensorFlow's own name for what everyone else calls AWS_ENDPOINT_URL.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        os.environ.setdefault("S3_ENDPOINT", endpoint)
    try:
        import tensorflow_io  # noqa: F401
    except ImportError:
        return
    _skip_destructors()


def require(directory: str, path: str) -> None:
    """Checks that TensorFlow can read a dataset, by looking up one of its shards.

    Args:
      directory: the dataset, as the user named it.
      path: the shard's path.

    Raises:
      UserError: TensorFlow has no file system for the URL's scheme, or cannot reach the shard through it.
    """
    scheme, is_url, _ = directory.partition("://")
    if not is_url:
        return
    flag = f"--config.data.dir={directory}"
    copy = f"copy the dataset to a disk{_COPY.get(scheme, '').format(directory)}, and give --config.data.dir=FOLDER"
    if scheme == "s3":
        _load_s3()
    if scheme not in tf.io.gfile.get_registered_schemes():
        remedy = f"{_INSTALL}, or {copy}" if scheme == "s3" else copy
        raise UserError(f"{flag}: TensorFlow has no file system for {scheme}://; {remedy}")
    try:
        tf.io.gfile.stat(path)
    except tf.errors.OpError as error:
        reason = str(error.message).splitlines()[0]
        where = " in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if scheme == "s3" else ""
        raise UserError(
            f"{flag}: TensorFlow cannot open {path} ({reason}); see that it is there and that credentials for it are "
            f"set{where}, or {copy}"
        ) from None
