"""JSON exports of label tools: doccano, Label Studio, Prodigy, spaCy, and texts with spans. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tarmac_client.exports.lines import ExportError, Found, Place, Relation, iob, numbered, utf16
from tarmac_client.texts import counted

Record = Mapping[str, Any]


def is_line(record: Record) -> bool:
    """Tell whether a record is a line as Tarmac trains on."""
    return "sentence" in record or {"user", "item"} <= record.keys()


def reader_of(first: Record) -> Callable[[Sequence[Any]], Found] | None:
    """Return what reads records like this one; None: it is no export that is known here."""
    keys = set(first)
    if is_line(first):
        return None
    if isinstance(first.get("data"), Mapping) and keys & {"annotations", "completions"}:
        return label_studio
    if keys & {"annotation_id", "annotator"} and "lead_time" in keys:
        return label_studio_min
    if keys & {"_input_hash", "_task_hash"} or {"text", "answer"} <= keys:
        return prodigy
    if "paragraphs" in keys:
        return spacy_training
    if "text" in keys and keys & {"ents", "cats"}:
        return spacy_docs
    if {"text", "spans"} <= keys:
        return texts_with_spans
    if keys & {"text", "data"} and keys & {"label", "labels", "entities"}:
        return doccano
    if "tokens" in keys and keys & {"ner_tags", "tags", "labels"}:
        return token_lists
    return None


def _object(where: str, record: Any) -> Record:
    if not isinstance(record, Mapping):
        raise ExportError(f"{where} is not an object, as the others are.")
    return record


def _text(where: str, record: Record, *names: str) -> str:
    for name in names:
        if isinstance(record.get(name), str):
            return str(record[name])
    raise ExportError(f"{where} has no text under {' or '.join(map(repr, names))}.")


def _place(where: str, start: Any, end: Any, label: Any) -> Place:
    first, after = _whole(start), _whole(end)
    if first is None or after is None or not isinstance(label, str):
        raise ExportError(
            f"{where}: a mention needs two whole numbers and a label (got {start!r}, {end!r}, {label!r})."
        )
    return first, after, label


def _whole(number: Any) -> int | None:
    """Return a whole number, also where pandas wrote it as 3.0."""
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def doccano(records: Sequence[Any]) -> Found:
    """Read doccano's JSONL or JSON: sequences by [start, end, label] or `entities`, classes by `label`."""
    # doccano exports texts that were not annotated, too, and numbers all. A text with labels and no number is a line.
    looked_at = not any(isinstance(one, Mapping) and "id" in one for one in records)
    lists = [_labels(one) for one in records if isinstance(one, Mapping) and isinstance(_labels(one), list)]
    # A text without a label is one without a mention, where the others have mentions.
    sequences = any(isinstance(one, list) for labels in lists for one in labels)
    ours = looked_at and not sequences and any("labels" in one for one in records if isinstance(one, Mapping))
    found = Found("texts with labels" if ours else "doccano's export")
    for where, given in numbered(records):
        record = _object(where, given)
        text = _text(where, record, "text", "data")
        if "entities" in record:
            mentions = {
                one.get("id", number): _place(where, one["start_offset"], one["end_offset"], one["label"])
                for number, one in enumerate(record["entities"])
            }
            given = [(one.get("from_id"), one.get("to_id"), one.get("type")) for one in record.get("relations") or []]
            found.add_entities(text, mentions.values(), where, _between(where, mentions, given))
            continue
        labels = _labels(record)
        if sequences and isinstance(labels, list):
            places = [_place(where, *(list(one) + [None] * 3)[:3]) for one in labels if isinstance(one, list)]
            found.add_entities(text, places, where)
        elif isinstance(labels, list):
            found.add_labels(text, labels, none_applies=looked_at)
        else:
            found.add_labels(text, [labels])
    return found


def _between(where: str, mentions: Mapping[Any, Place], given: Iterable[tuple[Any, Any, Any]]) -> list[Relation]:
    """Return the relations of a record, whose mentions are named by their ids.

    Raises:
        ExportError: a mention is not there, or a relation has no name.
    """
    relations = []
    for one, other, name in given:
        for key in (one, other):
            if key not in mentions:
                raise ExportError(f"{where}: a relation is of the mention {key!r}, which is not there.")
        if not isinstance(name, str) or not name.strip():
            raise ExportError(f"{where}: a relation has no name (got {name!r}).")
        relations.append((mentions[one], mentions[other], name.strip()))
    return relations


def _labels(record: Record) -> Any:
    return record.get("label", record.get("labels"))


def label_studio(records: Sequence[Any]) -> Found:
    """Read Label Studio's JSON: of each task the first annotation that was not cancelled."""
    found = Found("Label Studio's JSON export")
    for where, given in numbered(records, "task"):
        record = _object(where, given)
        done = [
            one
            for one in record.get("annotations") or record.get("completions") or []
            if not one.get("was_cancelled") and not one.get("skipped")
        ]
        if not done:
            found.left_out["no annotation that was finished"] += 1
            continue
        if len(done) > 1:
            found.left_out["further annotations of the same task"] += len(done) - 1
        results = [one for one in done[0].get("result") or [] if isinstance(one, Mapping)]
        name = next((str(one["to_name"]) for one in results if one.get("to_name")), "text")
        data = record["data"]
        text = _text(where, data, name, "text", *data)
        choices = [one["value"]["choices"] for one in results if one.get("type") == "choices"]
        if choices and not any(one.get("type") == "labels" for one in results):
            found.add_labels(text, [label for some in choices for label in some])
            continue
        regions = [one for one in results if one.get("type") in ("labels", "hypertextlabels")]
        places = marked(where, text, [one["value"] for one in regions])
        mentions = {
            one.get("id", number): place for number, (one, place) in enumerate(zip(regions, places, strict=True))
        }
        found.add_entities(text, places, where, _between(where, mentions, _drawn(found, results)))
    return found


def _drawn(found: Found, results: Sequence[Record]) -> Iterator[tuple[Any, Any, Any]]:
    """Give the relations of Label Studio from the one mention to the other; count those that say too little."""
    for one in results:
        if one.get("type") != "relation":
            continue
        direction, names = one.get("direction", "right"), one.get("labels") or []
        if direction not in ("left", "right"):
            found.left_out["relations in both directions"] += 1
        elif len(names) != 1:
            found.left_out["relations that have not one label"] += 1
        elif direction == "left":
            yield one.get("to_id"), one.get("from_id"), names[0]
        else:
            yield one.get("from_id"), one.get("to_id"), names[0]


def label_studio_min(records: Sequence[Any]) -> Found:
    """Read Label Studio's JSON-MIN: a task's columns beside its labels."""
    found = Found("Label Studio's JSON-MIN export")
    # A task without a label is a text without a mention, where others have mentions.
    sequences = any(_spans_in(one) is not None for one in records if isinstance(one, Mapping))
    for where, given in numbered(records, "task"):
        record = _object(where, given)
        text = _text(where, record, "text", *record)
        if sequences:
            found.add_entities(text, marked(where, text, _spans_in(record) or []), where)
            continue
        own = {"id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time"}
        several = [one["choices"] for one in record.values() if isinstance(one, Mapping) and "choices" in one]
        classes = [one for key, one in record.items() if key not in own and one != text and isinstance(one, str)]
        if several:
            found.add_labels(text, [label for some in several for label in some])
        else:
            found.add_labels(text, classes if len(classes) == 1 else [])
    return found


def _spans_in(record: Record) -> list[Any] | None:
    lists = [one for one in record.values() if isinstance(one, list) and one and isinstance(one[0], Mapping)]
    return next((one for one in lists if "labels" in one[0]), None)


def marked(where: str, text: str, values: Sequence[Any]) -> list[Place]:
    """Return the places of Label Studio's mentions.

    Raises:
        ExportError: one is not in the text, or has not one label.
    """
    return [_marked(where, text, value) for value in values]


def _marked(where: str, text: str, value: Record) -> Place:
    labels = value.get("labels") or value.get("hypertextlabels") or []
    if len(labels) != 1:
        raise ExportError(f"{where}: a mention has {counted(len(labels), 'label')}; one is needed.")
    start, end, label = _place(where, value.get("start"), value.get("end"), labels[0])
    said = value.get("text")
    if isinstance(said, str) and text[start:end] != said:
        start, end = utf16(text, start, end)  # a browser counts so: an emoji is two
        if text[start:end] != said:
            raise ExportError(f"{where}: the mention {said!r} is not where its numbers say.")
    return start, end, label


def prodigy(records: Sequence[Any]) -> Found:
    """Read Prodigy's JSONL: what was accepted."""
    found = Found("Prodigy's export")
    # Where one may choose several, who accepts a text without a choice says that none applies.
    several = any(isinstance(one, Mapping) and len(one.get("accept") or []) > 1 for one in records)
    for where, given in numbered(records):
        record = _object(where, given)
        answer = record.get("answer", "accept")
        if answer != "accept":
            found.left_out[f"answered with {answer}"] += 1
            continue
        text = _text(where, record, "text")
        if "options" in record or "accept" in record:
            found.add_labels(text, record.get("accept") or [], none_applies=several)
        elif "spans" in record:
            spans = [_place(where, one.get("start"), one.get("end"), one.get("label")) for one in record["spans"] or []]
            found.add_entities(text, spans, where)
        else:
            found.add_labels(text, [record.get("label")])
    return found


def texts_with_spans(records: Sequence[Any]) -> Found:
    """Read texts with spans: Tarmac's own form of entities by characters, of which all other keys are kept."""
    found = Found("texts with spans")
    for where, given in numbered(records):
        record = _object(where, given)
        if is_line(record):
            found.lines.append(dict(record))
        elif record.get("spans") is not None:
            text = _text(where, record, "text")
            spans = [_said(where, text, one) for one in record["spans"]]
            found.add_entities(text, spans, where, more=record)
        else:
            found.left_out["no spans"] += 1
    return found


def _said(where: str, text: str, span: Record) -> Place:
    """Return a span's place.

    Raises:
        ExportError: it is none, or its text is another than that at the place.
    """
    start, end, label = _place(where, span.get("start"), span.get("end"), span.get("label"))
    said = span.get("text")
    if said is not None and said != text[start:end]:
        raise ExportError(f"{where}: a span says {said!r}, and from {start} to {end} the text is {text[start:end]!r}.")
    return start, end, label


def spacy_docs(records: Sequence[Any]) -> Found:
    """Read spaCy's `doc.to_json()`: entities, else the classes that are true, or the likeliest."""
    found = Found("spaCy's documents as JSON")
    for where, given in numbered(records, "document"):
        record = _object(where, given)
        text = _text(where, record, "text")
        if "ents" in record:
            ents = [_place(where, one.get("start"), one.get("end"), one.get("label")) for one in record["ents"]]
            found.add_entities(text, ents, where)
        else:
            found.add_cats(text, record["cats"] or {})
    return found


def spacy_training(records: Sequence[Any]) -> Found:
    """Read the training data of spaCy 2: tokens with BILOU tags, or with parts of speech."""
    found = Found("spaCy 2's training data")
    for where, given in numbered(records, "document"):
        for paragraph in _object(where, given)["paragraphs"]:
            for sentence in paragraph.get("sentences", []):
                tokens = [one for one in sentence["tokens"] if str(one.get("orth", "")).strip()]
                if any(len(str(one["orth"]).split()) > 1 for one in tokens):
                    found.left_out["a token with a blank in it"] += 1
                    continue
                line: dict[str, Any] = {"sentence": " ".join(str(one["orth"]) for one in tokens)}
                if tokens and all(one.get("ner") for one in tokens):
                    line["named_entity"] = iob([one["ner"] for one in tokens], where)
                if tokens and all(one.get("tag") for one in tokens):
                    line["pos"] = [one["tag"] for one in tokens]
                if len(line) == 1:
                    found.left_out["no label"] += 1
                else:
                    found.lines.append(line)
    return found


def token_lists(records: Sequence[Any]) -> Found:
    """Read lists of tokens beside lists of tags, as Hugging Face's data sets have them."""
    found = Found("lists of tokens and tags")
    for where, given in numbered(records):
        record = _object(where, given)
        tokens = record.get("tokens")
        tags = next((record[name] for name in ("ner_tags", "tags", "labels") if name in record), None)
        if not isinstance(tokens, list) or not isinstance(tags, list) or len(tokens) != len(tags):
            raise ExportError(f"{where}: tokens and tags must be two lists of one length.")
        if any(not isinstance(tag, str) for tag in tags):
            raise ExportError(
                f"{where}: its tags are numbers, and the file does not say which tag each number is: write the names."
            )
        if any(len(str(token).split()) != 1 for token in tokens):
            found.left_out["a token that is blank or has a blank in it"] += 1
            continue
        found.lines.append({"sentence": " ".join(map(str, tokens)), "named_entity": iob(tags, where)})
    return found
