"""The job on other runners than the local one, and on object storage: the same shards, to the byte."""

import json
import signal
import time
from concurrent import futures

import apache_beam as beam
import pytest
from apache_beam.internal import pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2

from common.command_line import UserError
from common.storage import filesystem
from preprocessing.conversion import pipeline, shards
from preprocessing.conversion.convert import convert
from preprocessing.conversion.shards import JobFolders
from preprocessing.dataset import schema
from preprocessing.dataset.integrity import verify
from tests.dask_cluster import dask_cluster
from tests.object_store import s3_server

pytestmark = pytest.mark.cluster


@pytest.fixture
def many_pictures(tmp_path, photographs):
    """A folder of 240 different JPEGs, and one that is there twice."""
    folder = tmp_path / "many"
    folder.mkdir()
    for index in range(240):
        data = photographs[index % len(photographs)].read_bytes()
        comment = f"copy {index}".encode()
        segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
        (folder / f"{index:04d}.jpg").write_bytes(data[:2] + segment + data[2:])
    (folder / "0240.jpg").write_bytes((folder / "0007.jpg").read_bytes())
    return folder


def _kill_in_the_middle(worker, job, folders):
    """Kills a worker as soon as some shards are staged and others are not."""
    while not job.done() and len([*filesystem.list_files(folders.staged)]) < 5:
        time.sleep(0.005)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert not job.done(), "the job was over before"


def test_a_dask_worker_that_is_killed_costs_nothing(many_pictures, tmp_path, shard_bytes):
    direct, dask = tmp_path / "direct", tmp_path / "dask"
    arguments = {"images_dir": str(many_pictures), "split_sizes": "train=0.9,val=0.1", "shard_mb": 0.25}
    expected = convert(output_dir=str(direct), **arguments)
    with dask_cluster(tmp_path / "cluster") as cluster, futures.ThreadPoolExecutor() as threads:
        job = threads.submit(convert, output_dir=str(dask), **arguments, beam_options=cluster.flags)
        _kill_in_the_middle(cluster.workers[0], job, JobFolders(str(dask)))
        info = job.result()
        assert cluster.workers[1].poll() is None
    assert len(shard_bytes(direct)) > 30
    assert shard_bytes(dask) == shard_bytes(direct)
    assert (dask / "rejected.jsonl").read_bytes() == (direct / "rejected.jsonl").read_bytes()
    assert info["splits"] == expected["splits"] and info["rejected"] == {"images": 1, "by_reason": {"duplicate": 1}}
    others = [path.name for path in dask.iterdir() if not schema.is_shard_name(path.name)]
    assert sorted(others) == ["dataset_info.json", "rejected.jsonl"]


def test_a_dask_address_that_nobody_answers_is_one_line(coco_folder, run_convert):
    pytest.importorskip("distributed", reason="no Dask; pip install 'cleanplate[dask]'")
    flags = ["--runner=DaskRunner", "--dask_client_address=tcp://127.0.0.1:1", "--dask_connection_timeout=1"]
    with pytest.raises(UserError, match="--dask_client_address=tcp://127.0.0.1:1: no scheduler answers there"):
        run_convert(beam_options=flags)
    assert not coco_folder.output.exists()


def test_a_job_server_runs_the_pipeline_from_its_portable_form(coco_folder, run_convert, shard_bytes):
    """What Flink's and Spark's job servers are sent, run by Beam's own: over gRPC, workers in this process."""
    run_convert(coco_folder.output.with_name("direct"))
    run_convert(beam_options=["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"])
    assert shard_bytes(coco_folder.output) == shard_bytes(coco_folder.output.with_name("direct"))
    verify(str(coco_folder.output))


def test_the_portable_form_holds_beams_primitives_alone_and_every_function_unpickles():
    options = PipelineOptions(["--runner=PortableRunner", "--job_endpoint=nowhere:1"])
    made = beam.Pipeline(options=options)
    pipeline.build(made, ["/plans/0.json", "/plans/1.json"], JobFolders("/out"), options)
    components = made.to_runner_api().components
    leaves = [transform for transform in components.transforms.values() if not transform.subtransforms]
    assert {leaf.spec.urn for leaf in leaves} <= {
        common_urns.primitives.IMPULSE.urn,
        common_urns.primitives.PAR_DO.urn,
        common_urns.primitives.GROUP_BY_KEY.urn,
        common_urns.primitives.FLATTEN.urn,
        common_urns.primitives.ASSIGN_WINDOWS.urn,
    }
    functions = []
    for leaf in leaves:
        if leaf.spec.urn == common_urns.primitives.PAR_DO.urn:
            payload = beam_runner_api_pb2.ParDoPayload.FromString(leaf.spec.payload)
            functions.append(pickler.loads(payload.do_fn.payload)[0])
            assert not payload.state_specs and not payload.timer_family_specs and not payload.restriction_coder_id
    assert {pipeline.StageShard, pipeline.PublishShard} <= set(map(type, functions))


@pytest.fixture(scope="module")
def object_store():
    with s3_server() as store:
        yield store


def _upload(store, folder, prefix):
    for path in folder.rglob("*"):
        if path.is_file():
            store.client.upload_file(str(path), store.bucket, f"{prefix}/{path.relative_to(folder)}")


def _objects(store, prefix):
    pages = store.client.get_paginator("list_objects_v2").paginate(Bucket=store.bucket, Prefix=f"{prefix}/")
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {
        key[len(prefix) + 1 :]: store.client.get_object(Bucket=store.bucket, Key=key)["Body"].read() for key in keys
    }


@pytest.mark.parametrize("workers", [[], ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]])
def test_from_object_storage_to_object_storage(coco_folder, run_convert, shard_bytes, object_store, workers):
    prefix = f"s3-{len(workers)}"
    _upload(object_store, coco_folder.images.parent, f"{prefix}/coco")
    url = f"{object_store.url}/{prefix}"
    run_convert()
    run_convert(
        f"{url}/tfrecords",
        images_dir=f"{url}/coco/train",
        annotations=f"{url}/coco/instances.json",
        captions=f"{url}/coco/captions.json",
        beam_options=[*object_store.flags, *workers],
    )
    written = _objects(object_store, f"{prefix}/tfrecords")
    assert {name for name in written if not schema.is_shard_name(name)} == {"dataset_info.json", "rejected.jsonl"}
    assert json.loads(written["dataset_info.json"])["splits"]["train"]["images"] == 8
    assert {name: data for name, data in written.items() if schema.is_shard_name(name)} == shard_bytes(
        coco_folder.output
    )
    verify(f"{url}/tfrecords")


def test_a_job_on_object_storage_is_taken_up(coco_folder, run_convert, shard_bytes, object_store, monkeypatch):
    url = f"{object_store.url}/resumed"
    run_convert()
    publish, stage, published, staged = shards.publish_shard, shards._stage, [], []

    def ends(manifest, *arguments):
        if len(published) == 2:
            raise RuntimeError("ended")
        published.append(manifest["file"])
        publish(manifest, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "publish_shard", ends)
        with pytest.raises(RuntimeError, match="ended"):
            run_convert(url, beam_options=object_store.flags)
    lost = sorted(_objects(object_store, "resumed/unfinished-job/staged"))[0]
    object_store.client.delete_object(Bucket=object_store.bucket, Key=f"resumed/unfinished-job/staged/{lost}")
    monkeypatch.setattr(shards, "_stage", lambda plan, folders: staged.append(plan.shard) or stage(plan, folders))
    run_convert(url, beam_options=object_store.flags)
    assert staged == [lost] and len(published) == 2
    written = _objects(object_store, "resumed")
    assert {name: written[name] for name in written if schema.is_shard_name(name)} == shard_bytes(coco_folder.output)


@pytest.mark.parametrize(
    ("name", "url", "flags", "complaint"),
    [
        ("images_dir", "s3://nobody/x", ["--s3_endpoint_url=http://127.0.0.1:1"], "not connect.*AWS_ENDPOINT_URL"),
        ("output_dir", "gs://bucket/x", [], r"no file system for gs:// here; pip install 'apache-beam\[gcp\]'"),
        ("annotations", "far://bucket/x", [], "no file system for far:// here; Beam knows s3://, gs://"),
    ],
)
def test_a_url_that_cannot_be_reached_is_one_line(coco_folder, run_convert, name, url, flags, complaint):
    pytest.importorskip("boto3", reason="no boto3; pip install 'cleanplate[aws]'")
    credentials = ["--s3_access_key_id=testing", "--s3_secret_access_key=testing", "--s3_region_name=us-east-1"]
    with pytest.raises(UserError, match=f"--{name}={url}: .*{complaint}") as raised:
        run_convert(**{name: url}, beam_options=credentials + flags)
    assert "\n" not in str(raised.value) and not coco_folder.output.exists()


def test_a_bucket_that_is_not_there_is_named(coco_folder, run_convert, object_store):
    with pytest.raises(UserError, match="--images_dir=s3://elsewhere/coco: cannot be read: .*NoSuchBucket"):
        run_convert(images_dir="s3://elsewhere/coco", beam_options=object_store.flags)
