"""The JSON Schema of an event line, generated from the models so that it can't differ from them."""

from typing import Any

from pydantic import TypeAdapter

from sidecar.events.model import EVENTS, SCHEMA


def event_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one line: one alternative for each kind of event, told apart by ``event``."""
    definitions: dict[str, Any] = {}
    alternatives = []
    for kind in EVENTS:
        body = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}", mode="serialization")
        definitions |= body.pop("$defs", {})
        # A line always has every field: null is written, never left out.
        fields = {
            field: {k: v for k, v in spec.items() if k != "default"}
            for field, spec in body.get("properties", {}).items()
        }
        envelope: dict[str, Any] = {
            "event": {"const": kind.name},
            "schema": {"const": SCHEMA},
            "seq": {"type": "integer", "minimum": 0},
            "timestamp": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"},
            "session": {"type": "string"},
            "worker": {"type": "integer", "minimum": 0},
            "level": {"const": kind.level},
        }
        definitions[kind.name] = {
            "type": "object",
            "description": (kind.__doc__ or "").strip()
            if not (kind.__doc__ or "").startswith(kind.__name__ + "(")
            else "",
            "properties": envelope | fields,
            "required": [*envelope, *fields],
            "additionalProperties": False,
        }
        alternatives.append({"$ref": f"#/$defs/{kind.name}"})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Egress sidecar event",
        "description": "One line of the event log.",
        "oneOf": alternatives,
        "$defs": dict(sorted(definitions.items())),
    }
