"""A schema registry for reading, as Confluent's clients ask: what our messages were written with.

The schemas are those in `control`. Nothing can be registered here: the pipeline announces its schemas itself.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse

from broker.api.context import Context, ContextParameter
from broker.api.subjects import SubjectVersion, same_schema, subject_versions
from broker.assemble import survey_names

MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
SUBJECT_NOT_FOUND, VERSION_NOT_FOUND, SCHEMA_NOT_FOUND = 40401, 40402, 40403
INVALID_VERSION, INVALID_SCHEMA, READ_ONLY, NOT_READY = 42202, 42201, 42205, 50301
_ANNOUNCED_WITHIN_S = 1.0
"""A message can reach its reader before the record that announces its schema has reached us."""


class RegistryResponse(JSONResponse):
    """JSON under the registry's own media type."""

    media_type = MEDIA_TYPE


class RegistryError(Exception):
    """An answer that is an error, in the registry's numbering."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def is_registry(path: str) -> bool:
    """Whether a path is the registry's: its errors have the registry's shape, whatever raised them."""
    return path.split("/", 2)[1:2] in (["schemas"], ["subjects"], ["config"], ["mode"])


def registry_answer(error: RegistryError) -> RegistryResponse:
    """The error as registries give it."""
    content = {"error_code": error.code, "message": error.message}
    headers = {"Allow": "GET"} if error.status == 405 else None
    return RegistryResponse(content, error.status, headers=headers)


router = APIRouter(default_response_class=RegistryResponse, tags=["schema registry"])


@router.get("/schemas/types")
def schema_types() -> list[str]:
    """The kinds of schema there are."""
    return ["AVRO"]


@router.get("/schemas/ids/{identifier}")
def schema_by_id(identifier: int, context: ContextParameter) -> dict[str, str]:
    """The schema with which a message was written, by the id in its first five bytes."""
    return {"schema": _schema(context, identifier)}


@router.get("/schemas/ids/{identifier}/schema")
def schema_text(identifier: int, context: ContextParameter) -> Any:
    """The schema itself, not wrapped."""
    return json.loads(_schema(context, identifier))


@router.get("/schemas/ids/{identifier}/subjects")
def subjects_of(identifier: int, context: ContextParameter) -> list[str]:
    """The subjects that have this schema."""
    return [item.subject for item in _uses(context, identifier)]


@router.get("/schemas/ids/{identifier}/versions")
def versions_of(identifier: int, context: ContextParameter) -> list[dict[str, Any]]:
    """The subjects and versions that are this schema."""
    return [{"subject": item.subject, "version": item.version} for item in _uses(context, identifier)]


@router.get("/subjects")
def list_subjects(context: ContextParameter) -> list[str]:
    """Every subject: `<topic>-value` of each topic of ours that has a schema."""
    return list(_subjects(context))


@router.get("/subjects/{subject}/versions")
def list_versions(subject: str, context: ContextParameter) -> list[int]:
    """The versions of a subject."""
    return [item.version for item in _versions(context, subject)]


@router.get("/subjects/{subject}/versions/{version}")
def subject_version(subject: str, version: str, context: ContextParameter) -> dict[str, Any]:
    """One version of a subject, by number or `latest`."""
    return _version(context, subject, version).to_json()


@router.get("/subjects/{subject}/versions/{version}/schema")
def subject_schema(subject: str, version: str, context: ContextParameter) -> Any:
    """The schema of one version, not wrapped."""
    return json.loads(_version(context, subject, version).schema)


@router.post("/subjects/{subject}")
def look_up(
    subject: str, body: Annotated[dict[str, Any], Body()], context: ContextParameter
) -> dict[str, Any]:
    """Which version of a subject a schema is; writes nothing."""
    wanted = body.get("schema")
    if not isinstance(wanted, str):
        raise RegistryError(422, INVALID_SCHEMA, 'the body must be {"schema": "<schema as a string>"}')
    for item in reversed(_versions(context, subject)):
        if same_schema(item.schema, wanted):
            return item.to_json()
    raise RegistryError(404, SCHEMA_NOT_FOUND, f"subject {subject!r} has no such schema")


@router.get("/config")
@router.get("/config/{subject}")
def compatibility(subject: str = "") -> dict[str, str]:
    """No check is made: readers resolve by each message's own schema."""
    return {"compatibilityLevel": "NONE"}


@router.get("/mode")
@router.get("/mode/{subject}")
def mode(subject: str = "") -> dict[str, str]:
    """Always READONLY."""
    return {"mode": "READONLY"}


def refuse(request: Request) -> None:
    """Registering, deleting and configuring are refused; reading what is not listed above is not found."""
    if request.method in {"GET", "HEAD"}:
        raise RegistryError(404, 404, f"there is no {request.url.path}")
    raise RegistryError(405, READ_ONLY, "this registry is READONLY: the broker announces its schemas itself")


for _place in ("/subjects", "/schemas", "/config", "/mode"):
    for _path in (_place, _place + "/{path:path}"):
        router.add_api_route(
            _path, refuse, methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False
        )


def _schema(context: Context, identifier: int) -> str:
    schema = context.state.schemas.get(identifier)
    if schema is None and context.follower.wait_until(lambda s: identifier in s.schemas, _ANNOUNCED_WITHIN_S):
        schema = context.state.schemas[identifier]
    if schema is None:
        raise RegistryError(404, SCHEMA_NOT_FOUND, f"no schema has the id {identifier}")
    return schema


def _subjects(context: Context) -> dict[str, list[SubjectVersion]]:
    return subject_versions(context.state, survey_names())


def _uses(context: Context, identifier: int) -> list[SubjectVersion]:
    _schema(context, identifier)
    return [item for items in _subjects(context).values() for item in items if item.id == identifier]


def _versions(context: Context, subject: str) -> list[SubjectVersion]:
    items = _subjects(context).get(subject)
    if items is None:
        raise RegistryError(404, SUBJECT_NOT_FOUND, f"there is no subject {subject!r}")
    return items


def _version(context: Context, subject: str, version: str) -> SubjectVersion:
    items = _versions(context, subject)
    if version in {"latest", "-1"}:
        return items[-1]
    if not version.isdecimal() or len(version) > 9 or int(version) == 0:
        raise RegistryError(
            422, INVALID_VERSION, f"version {version!r} is neither a number from 1 nor 'latest'"
        )
    if int(version) > len(items):
        raise RegistryError(404, VERSION_NOT_FOUND, f"subject {subject!r} has versions 1 to {len(items)}")
    return items[int(version) - 1]
