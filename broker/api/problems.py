"""Errors as answers: what was wrong, where, and what to do."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from broker.api.context import NotReady
from broker.api.registry import INVALID_SCHEMA, NOT_READY, RegistryError, is_registry, registry_answer
from broker.clusters import NothingSeen
from broker.errors import (
    AnnotationError,
    ArchiveError,
    BrokerError,
    FeedbackError,
    FilterError,
    ListError,
)
from broker.feedback_store import UnknownMark
from broker.filters.store import ReservedOwner, UnknownFilter
from broker.list_store import NotTheOwner, UnknownList
from broker.model_store import UnknownModel
from broker.published import UnknownAlert
from broker.similar import UnknownObject

UNKNOWN = (
    UnknownFilter,
    UnknownModel,
    UnknownAlert,
    UnknownMark,
    UnknownObject,
    UnknownList,
    NothingSeen,
    ArchiveError,
)
"""What somebody asked for and is not there."""


def add_error_handlers(app: FastAPI) -> None:
    """Give every error that this package raises its answer."""
    app.add_exception_handler(RegistryError, _registry)
    app.add_exception_handler(FilterError, _filter)
    app.add_exception_handler(BrokerError, _broker)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)


def explain(error: FilterError, text: str = "") -> dict[str, Any]:
    """A refused filter: the fault, its place, the text, and what to do.

    hint : '' where none is known.  position : None where the fault is no single place.
    """
    fault, _, hint = str(error).partition("; ")
    place = f" at {error.position}; "
    if place in str(error):  # the fault may quote a text that has a semicolon itself
        fault, _, hint = str(error).partition(place)
        fault += place.removesuffix("; ")
    return {"error": fault, "position": error.position, "where": error.text or text, "hint": hint}


def _registry(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RegistryError)
    return registry_answer(error)


def _filter(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FilterError)
    text = getattr(request.state, "where", "")
    return JSONResponse(explain(error, text), 409 if isinstance(error, ReservedOwner) else 422)


def _broker(request: Request, error: Exception) -> JSONResponse:
    """404 for what does not exist, 403 for what is another's, 422 for what cannot be; else a server behind us
    is missing.
    """
    if isinstance(error, UNKNOWN):
        return JSONResponse({"error": str(error)}, 404)
    if isinstance(error, NotTheOwner):
        return JSONResponse({"error": str(error)}, 403)
    if isinstance(error, FeedbackError | AnnotationError | ListError):
        return JSONResponse({"error": str(error)}, 422)
    if isinstance(error, NotReady) and is_registry(request.url.path):
        return registry_answer(RegistryError(503, NOT_READY, str(error)))
    return JSONResponse({"error": str(error)}, 503, headers={"Retry-After": "1"})


def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = [{"field": _field(item["loc"]), "error": str(item["msg"])} for item in error.errors()]
    text = "; ".join(f"{item['field']}: {item['error']}" for item in faults)
    if is_registry(request.url.path):
        return registry_answer(RegistryError(422, INVALID_SCHEMA, text))
    return JSONResponse({"error": text, "faults": faults}, 422)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if is_registry(request.url.path):
        return registry_answer(RegistryError(error.status_code, error.status_code, str(error.detail)))
    content = {"error": f"{error.detail}: {request.method} {request.url.path}"}
    return JSONResponse(content, error.status_code, headers=error.headers)


def _field(place: tuple[Any, ...]) -> str:
    """A field's name as its sender knows it: the first part only says body, path or query."""
    return ".".join(str(part) for part in place[1:]) or str(place[0])
