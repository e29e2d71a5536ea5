"""The trigger form: what Airflow's UI shows for each field of a request. Pure but for reading the catalogue."""

from __future__ import annotations

from typing import Any, Self

from tarmac.request.catalogue import Model, catalogue
from tarmac.request.schema import EXAMPLE_REFERENCE, TrainingRequest

EXAMPLE_DATASETS: dict[str, Any] = {"my-data": {"train": EXAMPLE_REFERENCE, "eval": None}}
"""What the field Data sets starts with, to be edited. It names no file, so a run cannot start from it unchanged."""


NOT_SHOWN = {"run"}
"""Fields of a request that the form leaves out: code of one's own comes from `tarmac run`, which stores it."""


class FieldSchema(dict[str, Any]):
    """A field's JSON schema, which is never changed: a copy of it is itself.

    Airflow copies a DAG's params for every operator, up to four times over, whenever a task starts.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself."""
        return self


def form_schema() -> dict[str, FieldSchema]:
    """Return the JSON schema of each top-level field, as the trigger form understands it.

    $defs are inlined and `anyOf [x, null]` becomes a type list. The form marks a field as required unless its type may
    be null, so an optional one's may. `default`, `description` and `source` are left out: a Param whose schema carries
    one of them makes the DAG vanish without an import error (Airflow 3.3.2).
    """
    schema = TrainingRequest.model_json_schema()
    definitions = schema.get("$defs", {})
    dropped = ("default", "description", "source")
    found = {}
    for name, field in schema["properties"].items():
        if name in NOT_SHOWN:
            continue
        made = {key: value for key, value in _inline(field, definitions).items() if key not in dropped}
        if name not in schema["required"] and isinstance(made["type"], str):
            made["type"] = [made["type"], "null"]
        if name == "parameters":
            made["description_md"] = parameters_help()
        found[name] = FieldSchema(made)
    return found


def form_defaults() -> dict[str, Any]:
    """Return what each field starts with: an optional one with its default, Data sets with an example."""
    names = {name for name, field in TrainingRequest.model_fields.items() if not field.is_required()} - NOT_SHOWN
    found: dict[str, Any] = TrainingRequest.model_construct().model_dump(mode="json", include=names)
    return {**found, "datasets": EXAMPLE_DATASETS}


def field_descriptions() -> dict[str, str | None]:
    """Return each top-level field's description; None where the schema has one in Markdown."""
    fields = TrainingRequest.model_fields.items()
    return {
        name: None if name == "parameters" else field.description or ""
        for name, field in fields
        if name not in NOT_SHOWN
    }


def parameters_help() -> str:
    """Describe the parameters of each model, in Markdown."""
    lines = [
        TrainingRequest.model_fields["parameters"].description or "",
        "The list is of all models, since a form of Airflow does not change with what is chosen in it: "
        "look for the model that you chose above.",
        "",
    ]
    alike: dict[str, list[str]] = {}
    for name, model in catalogue().models.items():
        alike.setdefault(_parameters_of(model) or "takes none", []).append(name)
        if model.transformer is not None:
            alike.setdefault(_parameters_of(model.transformer), []).append(f"{name} with a transformer")
    lines += [f"- **{', '.join(names)}**: {text}" for text, names in alike.items()]
    return "\n".join(lines)


def _parameters_of(model: Model) -> str:
    return "".join(
        f"\n  - *{name}* ({one.range_text()}){f': {one.help}' if one.help else ''}"
        for name, one in model.parameters.items()
    )


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        rest = {key: value for key, value in node.items() if key != "$ref"}
        node = {**definitions[node["$ref"].rsplit("/", 1)[1]], **rest}
    node = {key: _inline(value, definitions) for key, value in node.items()}
    options = node.get("anyOf", [])
    if len(options) == 2 and any(option.get("type") == "null" for option in options):
        other = next(option for option in options if option.get("type") != "null")
        del node["anyOf"]
        node = {**node, **other, "type": [other["type"], "null"]}
    return node
