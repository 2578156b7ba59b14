"""What the schema of a study says of a configuration: types, defaults, and messages in words."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

SCHEMA = Path(__file__).parent / "schemas" / "study.schema.yaml"

SYNONYMS = {"gpu": "cuda"}  # that look like another value


def read_schema() -> dict[str, Any]:
    """Return the schema, schemas/study.schema.yaml."""
    return yaml.safe_load(SCHEMA.read_text())


def schema_errors(study: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    """Return one line for each thing in `study` that the schema does not allow."""
    found = [_message(error) for error in Draft202012Validator(schema).iter_errors(study)]
    return found + list(_not_finite(study))


def from_command_line(value: Any, schema: Mapping[str, Any]) -> Any:
    """Give numbers their type: Snakemake hands over `--config seeds='[0,1]'` as a list of text."""
    kind = schema.get("type")
    if isinstance(value, Mapping):
        known = schema.get("properties", {})
        other = schema.get("additionalProperties")
        other = other if isinstance(other, Mapping) else {}
        return {k: from_command_line(v, known.get(k, other)) for k, v in value.items()}
    if isinstance(value, list):
        return [from_command_line(v, schema.get("items", {})) for v in value]
    if isinstance(value, str) and kind in ("integer", "number", None):
        value = _number_or_text(value)  # 1e6 is text to YAML, and a float then
    if isinstance(value, float) and kind == "integer" and value.is_integer():
        return int(value)
    return value


def _not_finite(value: Any, path: tuple[str | int, ...] = ()) -> Iterable[str]:
    """Numbers that JSON does not have; NaN is neither below nor above what a schema allows."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{_key(path)} = {value}: must be a finite number"
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from _not_finite(part, (*path, key))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from _not_finite(part, (*path, place))


def _number_or_text(text: str) -> Any:
    constants = {"true": True, "false": False, "null": None}
    if text.lower() in constants:
        return constants[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def with_defaults(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` with the schema's defaults where it says nothing, also inside mappings."""
    filled = dict(value)
    for key, part in schema.get("properties", {}).items():
        if key not in filled and "default" in part:
            filled[key] = part["default"]
        if key in filled and "properties" in part:
            filled[key] = with_defaults(filled[key], part)
    return filled


def _message(error: ValidationError) -> str:
    """One line that names the key, the value and what is allowed."""
    key = _key(error.absolute_path)
    value = json.dumps(error.instance, default=str)  # YAML has dates, JSON none
    match error.validator:
        case "additionalProperties":
            known = list(error.schema.get("properties", {}))
            unknown = [k for k in error.instance if k not in known]
            within = f"{key}." if key else ""
            return "; ".join(f"{within}{k}: unknown key{allowed(k, known)}" for k in unknown)
        case "required":
            missing = [k for k in error.validator_value if k not in error.instance]
            needed = ", ".join(error.validator_value)
            named = ", ".join(f"{key}.{k}" if key else k for k in missing)
            return f"{named}: missing; {key or 'a study'} needs {needed}"
        case "enum":
            return f"{key} = {value}: unknown{allowed(error.instance, error.validator_value)}"
        case "type" if error.validator_value == "array":
            if not isinstance(error.instance, str | int) or "." in key:
                return f"{key} = {value}: not a list"
            example = f"{key}='[{error.instance}]'"
            return f"{key} = {value}: not a list; on the command line: --config {example}"
        case "type":
            examples = error.schema.get("examples", [])
            hint = f", for example {json.dumps(examples[0])}" if examples else ""
            return f"{key} = {value}: must be of type {error.validator_value}{hint}"
        case "uniqueItems":
            twice = sorted({json.dumps(v) for v in error.instance if error.instance.count(v) > 1})
            return f"{key} = {value}: named twice: {', '.join(twice)}"
        case "minItems":
            return f"{key} = {value}: the list is empty; at least one is needed"
        case "minimum":
            return f"{key} = {value}: must be at least {error.validator_value}"
        case "maximum":
            return f"{key} = {value}: must be at most {error.validator_value}"
        case "exclusiveMinimum":
            return f"{key} = {value}: must be above {error.validator_value}"
        case "exclusiveMaximum":
            return f"{key} = {value}: must be below {error.validator_value}"
        case "pattern":
            return f"{key} = {value}: lower-case letters, digits and _ only, a letter first"
        case "not":
            reserved = ", ".join(error.validator_value["enum"])
            return f"{key} = {value}: reserved; the folders {reserved} below results/ are taken"
        case _:
            return f"{key} = {value}: {error.message}"


def _key(path: Iterable[str | int]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def allowed(value: Any, known: Iterable[str]) -> str:
    """Return how a message on an unknown `value` ends: the nearest of `known`, then all."""
    known = list(known)
    meant = [SYNONYMS[value]] if value in SYNONYMS else []
    near = [v for v in meant if v in known] or difflib.get_close_matches(str(value), known, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"{hint}; allowed: {', '.join(known)}"
