"""Which schemas belong to which topic."""

from __future__ import annotations

from broker.api.subjects import same_schema, subject_versions
from broker.control import ControlState
from broker.data.schema_ids import canonical
from broker.filter import Filter


def schema(name: str, *fields: str) -> str:
    """A record schema with some fields of text."""
    parts = [{"name": field, "type": "string"} for field in fields]
    return canonical({"type": "record", "name": name, "namespace": "broker", "fields": parts})


def state(*filters: Filter, schemas: dict[int, str]) -> ControlState:
    """A control state of some filters and schemas."""
    return ControlState(
        epoch=9, filters={(f"{f.owner}.{f.name}", f.version): f for f in filters}, schemas=schemas
    )


SCHEMAS = {
    70: schema("Alert", "a"),
    20: schema("LedgerRecord", "x"),
    30: schema("Alert", "a", "b"),
    10: schema("LightHit", "a"),
    40: schema("StandardHit", "a"),
}


def test_each_topic_with_a_schema_is_a_subject_and_versions_follow_the_order_of_announcement() -> None:
    item = Filter("me", "bright", 1, "mag < 18")
    subjects = subject_versions(state(item, schemas=SCHEMAS), ("ztf", "lsst"))
    assert {name: [(v.version, v.id) for v in versions] for name, versions in subjects.items()} == {
        "alerts.lsst-value": [(1, 70), (2, 30)],
        "alerts.ztf-value": [(1, 70), (2, 30)],
        "filters.me.bright-value": [(1, 10)],
        "ledger-value": [(1, 20)],
    }


def test_a_filters_subject_has_the_schemas_of_its_present_payload() -> None:
    old = Filter("me", "bright", 1, "mag < 18", "light")
    new = Filter("me", "bright", 2, "mag < 18", "standard")
    subjects = subject_versions(state(old, new, schemas=SCHEMAS), ())
    assert [item.id for item in subjects["filters.me.bright-value"]] == [40]


def test_an_unreadable_schema_belongs_to_no_subject_and_disturbs_none() -> None:
    odd = {1: "not json", 2: '"string"', 3: "[1]", **SCHEMAS}
    assert subject_versions(state(schemas=odd), ("ztf",)) == subject_versions(
        state(schemas=SCHEMAS), ("ztf",)
    )


def test_layout_does_not_make_another_schema() -> None:
    assert same_schema('{"type": "string"}', '{ "type":"string" }')
    assert not same_schema('{"type": "string"}', '{"type": "int"}')
    assert not same_schema("not json", '{"type": "int"}')
