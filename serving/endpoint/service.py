"""TF Serving's two gRPC services on top of our model store.

| service | implemented | UNIMPLEMENTED |
| --- | --- | --- |
| PredictionService | Predict, GetModelMetadata | Classify, Regress, MultiInference |
| ModelService | GetModelStatus, HandleReloadConfigRequest | |
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any, Callable

import grpc
from absl import logging
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from common.command_line import UserError
from serving.endpoint.model_store import ModelStore, UnavailableLabel
from serving.endpoint.prometheus import Metrics
from serving.endpoint.request_error import RequestError, invalid
from serving.endpoint.servable import DEFAULT_SIGNATURE

_SIGNATURE_DEF = "signature_def"


class RunSlots:
    """Limits how many predictions run and how many may wait; rejects further ones immediately."""

    def __init__(self, running: int, waiting: int, metrics: Metrics) -> None:
        self._run = threading.Semaphore(running)
        self._places = threading.Semaphore(running + waiting)
        self._metrics = metrics

    @contextlib.contextmanager
    def slot(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Waits for a slot, at most until the caller's deadline, and holds it for the block.

        Raises:
          RequestError: RESOURCE_EXHAUSTED, the queue is full; DEADLINE_EXCEEDED, the deadline passed in the queue;
            CANCELLED, the caller is gone.
        """
        if not self._places.acquire(blocking=False):
            raise RequestError(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full; try again later")
        try:
            # Without a deadline, gRPC reports a remaining time of None or of centuries.
            remaining = context.time_remaining()
            timeout = None if remaining is None else min(max(remaining, 0.0), threading.TIMEOUT_MAX)
            with self._metrics.waiting.track_inprogress():
                has_slot = self._run.acquire(timeout=timeout)
            if not has_slot:
                raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed in the queue")
            try:
                if not context.is_active():
                    raise RequestError(grpc.StatusCode.CANCELLED, "the caller left the queue")
                with self._metrics.running.track_inprogress():
                    yield
            finally:
                self._run.release()
        finally:
            self._places.release()


def _answering(method: Callable[..., Any]) -> Callable[..., Any]:
    """Turns a RequestError into the call's status; any other exception is a bug: logged, and reported as INTERNAL."""

    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(self, request, context)
        except RequestError as error:
            code, message = error.code, error.message
        except Exception as error:
            logging.exception("%s failed", method.__name__)
            code, message = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
        context.abort(code, message)

    return answer


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Runs models and describes them."""

    def __init__(self, store: ModelStore, slots: RunSlots, metrics: Metrics) -> None:
        self._store, self._slots, self._metrics = store, slots, metrics

    @_answering
    def Predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        """Runs one signature of one version."""
        with self._metrics.request(request.model_spec.name, self._store.has(request.model_spec.name)):
            return self._predict(request, context)

    def _predict(
        self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext
    ) -> predict_pb2.PredictResponse:
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with self._slots.slot(context):
            # Looked up only now, so that a request that waited in the queue gets the newest version.
            servable = self._store.servable(request.model_spec)
            outputs = servable.predict(signature_name, request.inputs, request.output_filter)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = servable.version
        response.model_spec.signature_name = signature_name
        for alias, tensor in outputs.items():
            response.outputs[alias].CopyFrom(tensor)
        return response

    @_answering
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Describes a version's signatures."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != _SIGNATURE_DEF:
                raise invalid(f"Metadata field {field} is not supported")
        servable = self._store.servable(request.model_spec)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in servable.signature_defs.items():
            signatures.signature_def[name].CopyFrom(signature)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = servable.version
        response.metadata[_SIGNATURE_DEF].Pack(signatures)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Reports the versions' states and changes which models are served."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store

    @_answering
    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: grpc.ServicerContext
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """Reports the state of one version or of all."""
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        statuses = self._store.statuses(request.model_spec)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)

    @_answering
    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest, context: grpc.ServicerContext
    ) -> model_management_pb2.ReloadConfigResponse:
        """Replaces the set of models; returns once they are loaded."""
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest."
                " Only ModelConfigList is currently supported"
            )
        try:
            self._store.replace(request.config.model_config_list.config)
        except UnavailableLabel as error:
            raise RequestError(grpc.StatusCode.FAILED_PRECONDITION, str(error)) from error
        except UserError as error:
            raise invalid(str(error)) from error
        return model_management_pb2.ReloadConfigResponse()
