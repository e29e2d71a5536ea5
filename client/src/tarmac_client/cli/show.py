"""What the command prints: tables, and a session as it goes. Pure, but for `Screen` and the terminal's width."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime, timezone
from typing import Any, TextIO

from tarmac_client.texts import counted
from tarmac_client.types import (
    DagFile,
    Explanation,
    Finding,
    Mended,
    ModelVersion,
    ProductionStep,
    Progress,
    SessionInfo,
    SessionRow,
    StoredFile,
    TaskInfo,
    Verdict,
)
from tarmac_client.verbs import size

_MARKS = {"success": "✓", "failed": "✗"}
_QUIET = ("upstream_failed", "removed")
_BRANCHES = (
    "gpu_training_sensor",
    "gpu_preflight_configuration",
    "gpu_pool_setup",
    "train_model_gpu",
    "train_model_cpu",
)
"""Tasks that are skipped on the branch that a session does not take. Any other was skipped by a person."""
_BAR = 24
_MOST_LABELS = 12
_MOST_TYPES = 20
_WITHOUT_A_TERMINAL = 160


def seconds(count: float | None) -> str:
    """Write a duration for people. Pure."""
    if count is None:
        return "-"
    whole = max(0, round(count))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days"


def one_line(text: str) -> str:
    """Write a text without what moves a terminal's cursor. Pure."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, cut: bool = False) -> list[str]:
    """Lay rows out in columns. Pure, but for the screen's width.

    Args:
        cut: the last column is cut where it does not fit the screen; False: other commands take what is in it.
    """
    lines = [list(header), *([one_line(cell) for cell in row] for row in rows)]
    widths = [max(_columns(line[place]) for line in lines) for place in range(len(header))]
    most = shutil.get_terminal_size((_WITHOUT_A_TERMINAL, 24)).columns
    least = sum(widths[:-1]) + 2 * (len(widths) - 1) + _columns(header[-1])
    made = []
    for line in lines:
        cells = [cell + " " * (width - _columns(cell)) for cell, width in zip(line, widths, strict=True)]
        text = "  ".join(cells).rstrip()
        made.append(_cut(text, max(most, least)) if cut else text)
    return made


def _columns(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return len(text) + wide - sum(bool(unicodedata.combining(letter)) for letter in text)


def _named(names: Sequence[str], rest: Sequence[str]) -> list[str]:
    """Lay out names of a trainer with what follows each, the names cut so that no line is wider than the screen."""
    width = shutil.get_terminal_size((_WITHOUT_A_TERMINAL, 24)).columns - 4
    room = max(4, width - max(map(len, rest), default=0))
    shown = [_cut(one_line(name), room) for name in names]
    size = max([min(24, room), *map(_columns, shown)])
    return [f"{name}{' ' * (size - _columns(name))}{text}" for name, text in zip(shown, rest, strict=True)]


def _cut(text: str, most: int) -> str:
    if _columns(text) <= most:
        return text
    while _columns(text) >= most:
        text = text[:-1]
    return text + "…"


def as_json(value: Any) -> str:
    """Write a value, or a list of them, as JSON; times in ISO 8601. Pure."""

    def plain(one: Any) -> Any:
        if is_dataclass(one) and not isinstance(one, type):
            return asdict(one)
        return [plain(item) for item in one] if isinstance(one, (list, tuple)) else one

    def text_of(other: object) -> str:
        return other.isoformat() if isinstance(other, datetime) else str(other)

    return json.dumps(plain(value), ensure_ascii=False, indent=2, default=text_of)


def session_lines(rows: Sequence[SessionRow]) -> list[str]:
    """A table of sessions."""
    if not rows:
        return ["No training session yet: tarmac train --help"]
    header = ["SESSION", "STATE", "MODEL", "BY", "FOR", "NOW"]
    return table(
        header,
        [
            [
                row.id,
                row.run_state,
                row.name or row.model or "?",
                row.owner or "-",
                seconds(row.seconds),
                row.says or row.now or row.note,
            ]
            for row in rows
        ],
        cut=True,
    )


def file_lines(files: Sequence[StoredFile]) -> list[str]:
    """A table of stored files."""
    if not files:
        return ["No data set yet: tarmac data push FILE"]
    return table(
        ["STORED", "SIZE", "CALLED", "REFERENCE"],
        [[age(one.stored), size(one.size), _cut(", ".join(one.names), 40) or "-", one.reference] for one in files],
    )


def content_lines(file: StoredFile) -> list[str]:
    """What is in a stored file."""
    lines = [f"{file.reference}  {size(file.size)}, stored {age(file.stored)} ago"]
    if file.lines is not None:
        lines.append(counted(file.lines, "line") + (f", {file.duplicates} of them repeated" if file.duplicates else ""))
    lines += [
        f"  {one_line(key):<20} {', '.join(file.kinds.get(key, ()))} in {counted(count, 'line')}"
        + _words(file.words.get(key))
        for key, count in file.keys.items()
    ]
    for path, counts in file.labels.items():
        in_all = file.labels_in_all.get(path, len(counts))
        shown = ", ".join(f"{one_line(label)} {count}" for label, count in list(counts.items())[:_MOST_LABELS])
        more = f", and {in_all - _MOST_LABELS} more" if in_all > _MOST_LABELS else ""
        lines.append(f"{'labels' if path == 'labels' else f'labels of {one_line(path)}'}: {shown}{more}")
    if file.overlap is not None:
        lines.append(
            f"{counted(file.overlap, 'line')} {'is' if file.overlap == 1 else 'are'} in the other data set too"
        )
    lines += [f"warning: {one_line(text)}" for text in file.warnings]
    lines += [_cut(one_line(json.dumps(line, ensure_ascii=False)), 200) for line in file.sample]
    return lines


def _words(found: Mapping[str, int] | None) -> str:
    return "" if not found else f", {found['least']} to {found['most']} words, half have at most {found['median']}"


def kinds_lines(found: Mapping[str, str]) -> list[str]:
    """A table of the kinds of models."""
    return [*table(["MODEL", "WHAT"], list(found.items())), "", "Parameters of one: tarmac kinds MODEL"]


def kind_lines(found: Mapping[str, Any]) -> list[str]:
    """A kind of model, and each of its parameters with what it may be and what it does."""
    lines = [f"{found['name']}: {one_line(found['title'])}", f"  its versions are ranked by {found['score']}"]
    lines += _parameter_lines(found["parameters"])
    if tuned := found.get("transformer"):
        lines += [
            "",
            "  Where a transformer is fine-tuned, from weights that base_model names:",
            *_parameter_lines(tuned),
        ]
    return (
        [*lines, "", "Set one: tarmac train MODEL --train FILE --set PARAMETER=VALUE"] if found["parameters"] else lines
    )


def _parameter_lines(parameters: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for one in parameters:
        lines += ["", f"  {one['name']}  {_range(one)}"]
        lines += textwrap.wrap(one_line(one.get("help") or ""), 76, initial_indent="    ", subsequent_indent="    ")
    return lines


def _range(one: Mapping[str, Any]) -> str:
    if one["type"] == "choice":
        allowed = " or ".join(json.dumps(choice) for choice in one["choices"])
    elif one["low"] is None or one["high"] is None:
        allowed = "a word"
    else:
        allowed = f"{one['low']:,.10g} to {one['high']:,.10g}"
    default = one["default"]
    if default is None:
        return allowed
    return f"{allowed}, default {default if isinstance(default, str) else format(default, ',.10g')}"


def dag_lines(files: Sequence[DagFile]) -> list[str]:
    """Print uploaded DAG files, and why Airflow cannot load one."""
    if not files:
        return ["No DAG file is uploaded."]
    rows = [
        (one.name, ", ".join(dag.id for dag in one.dags), one.state, one.who, age(one.at), one_line(one.why or "-"))
        for one in files
    ]
    lines = table(("NAME", "DAGS", "STATE", "BY", "AGE", "WHY"), rows, cut=True)
    return lines + [f"{one.name}: Airflow cannot load it: {one_line(one.error)}" for one in files if one.error]


def uploaded_lines(file: DagFile) -> list[str]:
    """Print what became of an upload."""
    if file.state == "broken":
        return [
            f"Uploaded {file.name}, and Airflow cannot load it: {one_line(file.error)}",
            f"Mend it and upload it again, or: tarmac dag rm {file.name}",
        ]
    lines = [f"Uploaded {file.name}: {counted(len(file.dags), 'DAG')}"]
    for dag in file.dags:
        paused = " (paused, as Airflow begins a new one: turn it on there)" if dag.paused else ""
        lines.append(f"  {dag.id}  {dag.url}{paused}")
    if file.state == "waiting":
        lines.append("Airflow has not loaded it yet: `tarmac dag ls` says when it has.")
    return lines


def model_lines(versions: Sequence[ModelVersion], name: str | None = None) -> list[str]:
    """A table of registered versions; name: of this model alone."""
    if not versions and name:
        return [f"{name} has no version any more: tarmac models production {name}"]
    if not versions:
        return ["No model yet: tarmac train --help"]
    rows = [
        [one.name, str(one.version), ", ".join(one.aliases) or "-", _score(one), age(one.created), one.url]
        for one in versions
    ]
    return table(["NAME", "VERSION", "ALIAS", "METRIC", "AGE", "PAGE"], rows)


def _score(version: ModelVersion) -> str:
    name, value, lines = (version.tags.get(f"tarmac.{key}", "") for key in ("score_name", "score", "eval_lines"))
    try:
        text = f"{name} {float(value):.4f}"
    except ValueError:  # there is none, or a person wrote something else into the tag
        return "-"
    return text + (f" on {_evaluation_lines(int(lines))}" if lines.isdecimal() else "")


def comparison_lines(both: Sequence[Mapping[str, Any]]) -> list[str]:
    """Two versions side by side; a star marks what differs."""
    a, b = both
    rows = []
    for section in ("metric", "parameter", "data", "training", "origin"):
        for name in sorted({*a[section], *b[section]}):
            left, right = (str(one[section].get(name, "-")) for one in (a, b))
            rows.append(["*" if left != right else "", section, name, left, right])
    said = [caution] if (caution := a.get("caution")) else []  # a stack of an earlier version has none
    return [*said, *table(["", "", "", *(f"{one['name']}/{one['version']}" for one in both)], rows)]


_STEPS = {
    "rule": "the rule", "person": "a person", "rollback": "a step back", "mlflow": "its alias was set in MLflow",
    "version_deleted": "the version was deleted in MLflow", "model_deleted": "the model was deleted in MLflow",
}  # fmt: skip


def step_lines(step: ProductionStep) -> list[str]:
    """One step of the history of what is in production."""
    before, after = (
        "nothing" if version is None else f"version {version}" for version in (step.from_version, step.to_version)
    )
    return [
        f"{step.model}: {after} is in production, {before} was before",
        f"  since  {_instant(step.at)}",
        f"  by     {one_line(step.who)} ({_STEPS.get(step.kind, step.kind)})",
        f"  why    {one_line(step.why)}",
    ]


def production_lines(steps: Sequence[ProductionStep], model: str, at: datetime | None) -> list[str]:
    """What is in production and its history; with a time what was there then."""
    if at is not None:
        then = steps[0].to_version if steps else None
        what = "Nothing" if then is None else f"Version {then}"
        return [f"{what} of {model} was in production at {_instant(at)}."]
    if not steps:
        return [f"No version of {model} was ever in production."]
    rows = [
        [
            _instant(one.at),
            _version(one.from_version),
            _version(one.to_version),
            _STEPS.get(one.kind, one.kind),
            one.who,
            one.why,
        ]
        for one in reversed(steps)
    ]
    return [*step_lines(steps[-1]), "", *table(["AT", "FROM", "TO", "KIND", "WHO", "WHY"], rows, cut=True)]


def _instant(at: datetime | None) -> str:
    return "-" if at is None else at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _version(number: int | None) -> str:
    return "-" if number is None else str(number)


def verdict_lines(found: Verdict) -> list[str]:
    """Whether a repetition gave the same metrics."""
    lines = [f"  not the same: {one_line(text)}" for text in found.circumstances]
    lines += [f"  {one_line(text)}" for text in found.metrics]
    return [*lines, "The metrics match." if found.matches else "The metrics do not match."]


def gpu_lines(found: Mapping[str, Any]) -> list[str]:
    """Devices, what is reserved of them, and the queue."""
    lines = []
    for device in found["devices"]:
        free = max(0, device["capacity_bytes"] - device["reserved_bytes"] - device["external_bytes"])
        host = device.get("host", "local")
        where = "" if host == "local" else f" on {host}"
        lines.append(
            f"{device['uuid']}  {device['name']}{where}: {size(free)} free of {size(device['capacity_bytes'])}, "
            f"{size(device['reserved_bytes'])} reserved, {size(device['external_bytes'])} used by others"
        )
        if why := device["quarantine"] or device.get("closed") or device["unusable"]:
            lines.append(f"  not usable: {one_line(why)}")
        for row in found["reservations"]:
            if row["device_uuid"] == device["uuid"]:
                lines.append(f"  {row['run_id']}  {size(row['bytes'])} reserved")
    if not lines:
        lines.append(
            "No GPU is known: the stack has none, or no session has asked for one yet. `tarmac gpu check` looks now."
        )
    return [*lines, *_queue(found["queue"], "a GPU")]


def host_lines(found: Mapping[str, Any]) -> list[str]:
    """Cores and memory of hosts, what is reserved of them, and the queue of CPU sessions."""
    lines = []
    for host in found["hosts"]:
        cores, memory = (
            max(0, host[f"capacity_{unit}"] - host[f"reserved_{unit}"] - host[f"beside_{unit}"])
            for unit in ("millicpus", "bytes")
        )
        lines.append(
            f"{host['name']}  {cores / 1000:g} of {host['capacity_millicpus'] / 1000:g} cores free, "
            f"{size(memory)} free of {size(host['capacity_bytes'])}"
        )
        for row in found["reservations"]:
            if row["host"] == host["name"]:
                lines.append(f"  {row['run_id']}  {_taken(row)} reserved{' beside its GPU' if row['beside'] else ''}")
    if not lines:
        lines.append("No host has been measured yet: the stack does that when it starts.")
    return [*lines, *_queue(found["queue"], "cores and memory")]


def _taken(row: Mapping[str, Any]) -> str:
    count = row["millicpus"] / 1000
    cores = f"{count:g} core{'' if count == 1 else 's'} and " if count else ""
    return f"{cores}{size(row['bytes'])}"


def _queue(queue: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    if not queue:
        return [f"No session waits for {what}."]
    return [f"{place}. {row['run_id']}: {one_line(row['reason'])}" for place, row in enumerate(queue, 1)]


def explanation_lines(found: Explanation) -> list[str]:
    """Why a session waits or failed, and what to do."""
    why, todo = ([one_line(text) for text in texts] for texts in (found.why, found.todo))
    ended = f" ({found.run_state})" if found.run_state in ("success", "failed") else ""
    head = f"{found.id}: {found.state}{ended}"
    return [head, *(f"  why    {text}" for text in why), *(f"  do     {text}" for text in todo)]


def finding_lines(found: Sequence[Finding]) -> list[str]:
    """What was found of each part, what is wrong last."""
    marks = {"ok": "✓", "note": "!", "wrong": "✗"}
    order = sorted(found, key=lambda one: list(marks).index(one.state) if one.state in marks else 0)
    lines = []
    for one in order:
        lines.append(f"{marks.get(one.state, ' ')} {one.part:<20} {one_line(one.says)}")
        if one.todo:
            lines.append(f"  {'':<20} {one_line(one.todo)}")
    wrong = sum(one.state == "wrong" for one in found)
    notes = sum(one.state == "note" for one in found)
    look = f" {counted(notes, 'note')} (!) to look at." if notes else ""
    return [*lines, (f"{wrong} wrong." if wrong else "Nothing is wrong.") + look]


def mended_lines(found: Mended) -> list[str]:
    """What was mended, then what is left and why."""
    lines = [f"✓ {one_line(one)}" for one in found.done] + [f"✗ {one_line(one)}" for one in found.failed]
    for one, why in found.left:
        lines.append(f"{'✗' if one.state == 'wrong' else '!'} {one.part}: {one_line(one.says)}")
        lines.append(f"  Left: {one_line(why)}.")
        lines += [f"  {one_line(one.todo)}"] if one.todo else []
    mended = f"{len(found.done)} mended." if found.done else "Nothing was mended."
    wrong = len(found.failed) + sum(one.state == "wrong" for one, _ in found.left)
    return [*lines, f"{mended} {f'{wrong} wrong.' if wrong else 'Nothing is wrong.'}"]


def gpu_check_lines(found: Mapping[str, Any]) -> list[str]:
    """Whether GPUs can be used, and what is wrong with those that cannot."""
    lines = []
    if found["driver"]:
        lines.append(f"NVIDIA driver {found['driver']}, CUDA {found['cuda'] or '?'}")
    for device in found["devices"]:
        facts = ["memory not known" if device["total_bytes"] is None else size(device["total_bytes"])]
        if capability := device.get("capability"):
            facts.append(f"compute capability {capability}")
        if parent := device.get("parent"):
            facts.append(f"an instance of {parent}")
        mark = "✗" if device["problem"] else "✓"
        lines.append(f"{mark} {device['uuid']}  {one_line(device['name'])}, {', '.join(facts)}")
        lines += [f"  {one_line(text)}" for text in (device["problem"], device.get("remark")) if text]
    if passed := found.get("passed"):
        lines.append(f"The engine handed {counted(passed, 'GPU')} to a container.")
    lines += [f"✗ {one_line(text)}" for text in found["unidentified"]]
    sentence = one_line(found["sentence"])
    return [*lines, f"{sentence[:1].upper()}{sentence[1:]}" + ("" if sentence.endswith(".") else ".")]


def age(at: datetime | None) -> str:
    """How long ago something was."""
    return "-" if at is None else seconds((datetime.now(timezone.utc) - at).total_seconds())


def status_lines(info: SessionInfo) -> list[str]:
    """All about a session at one instant."""
    lines = [
        f"{info.id}: {info.state} ({info.run_state}), {info.model or '?'}, for {seconds(info.seconds)}",
        *(f"  {_task(task.id, task.state, task.seconds)}" for task in info.tasks if _is_told(task, info)),
    ]
    if info.now and not info.over:
        lines.append(f"  now    {one_line(info.now)}")
    if info.waits:
        lines.append(f"  waits: {one_line(info.waits.why)} ({info.waits.ahead} before it in the queue)")
    if info.progress:
        lines.append(f"  {progress_text(info)}")
    return lines + end_lines(info)


def end_lines(info: SessionInfo) -> list[str]:
    """What a session gave, or why it failed, and where its page is."""
    lines = []
    if info.result:
        if info.result.cached_from:
            lines.append(f"  nothing was trained: the same training was done before, by {info.result.cached_from}")
        if info.result.metrics:
            count = info.result.eval_lines
            on = "" if count is None else f"   on {_evaluation_lines(count)}"
            lines.append("  " + "   ".join(f"{name} {value:.3f}" for name, value in info.result.metrics.items()) + on)
        if chance := info.result.interval:
            metric = one_line(chance.metric)
            lines.append(f"  {metric} {chance.low:.2f} to {chance.high:.2f} on other lines like them (95 % interval)")
        told = info.result.by_type[:_MOST_TYPES]
        numbers = [
            f" P {kind.precision:.3f}   R {kind.recall:.3f}   F1 {kind.f1:.3f}"
            + ("" if kind.support is None else f"   of {kind.support:,}")
            for kind in told
        ]
        lines += [f"    {text}" for text in _named([kind.name for kind in told], numbers)]
        if others := max(0, len(info.result.by_type) - _MOST_TYPES) + info.result.types_left_out:
            lines.append(f"    and {others} more: --json has all, or the 200 most frequent")
        lines += [f"  warning: {one_line(text)}" for text in info.result.warnings]
        if info.result.model:
            lines.append(f"  model  {info.result.model} version {info.result.version}  {info.result.model_url or ''}")
        if info.result.promotion:
            lines.append(f"         {one_line(info.result.promotion)}")
    if info.why_failed:
        first, *more = info.why_failed.splitlines() or [""]
        lines += [f"  why    {one_line(first)}", *(f"         {one_line(line)}" for line in more[:20])]
        lines.append(f"  next   tarmac explain {info.id}")
    if info.lacks:
        lines.append(f"  but    {one_line(info.lacks)}")
    return [*lines, f"  page   {info.url}"]


def _evaluation_lines(count: int) -> str:
    return counted(count, "evaluation line")


def _is_told(task: TaskInfo, info: SessionInfo) -> bool:
    if task.state == "skipped":  # Airflow skips what is left of a session that was marked as failed
        return task.id not in _BRANCHES and info.run_state != "failed"
    return task.state is not None and task.state not in _QUIET


def _task(name: str, state: str | None, took: float | None) -> str:
    duration = f"{took:7.1f} s" if took is not None else " " * 9
    return f"{_MARKS.get(state or '', ' ')} {name:<32} {duration}" + ("" if state == "success" else f"  {state}")


def progress_text(info: SessionInfo, *, bar: bool = False) -> str:
    """How far a training is, with its latest metric. Pure."""
    found: Progress | None = info.progress
    if found is None:
        return ""
    filled = round(_BAR * found.fraction)
    drawn = f"[{'█' * filled}{'·' * (_BAR - filled)}] " if bar else ""
    # Who trains may not know yet how much there is to do, or never tell.
    text = f"training  {drawn}{100 * found.fraction:.0f} % of {found.total:g}" if found.total > 0 else "training"
    if found.eta_seconds is not None:
        text += f", at most {seconds(found.eta_seconds)} left"
    if info.metric:
        step = "" if info.metric.step is None else f" at step {info.metric.step:g}"
        text += f", {one_line(info.metric.name)} {info.metric.value:.3f}{step}"
    return text + (f"  {one_line(found.message)}" if found.message else "")


class Screen:
    """Shows a session as it goes: whole lines, and on a terminal one live line below them.

    Args:
        stream: where to.
        live: it is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, live: bool | None = None) -> None:
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty() if live is None else live
        self._shown: set[tuple[str, int, str]] = set()
        self._why, self._tenth = "", -1

    def line(self, text: str) -> None:
        """Print a whole line."""
        print(("\r\x1b[K" if self._live else "") + text, file=self._stream, flush=True)

    def show(self, info: SessionInfo) -> None:
        """Print what is new of a session."""
        for task in info.tasks:
            key = (task.id, task.attempt, str(task.state))
            if task.state not in ("success", "failed", "skipped", "up_for_retry") or key in self._shown:
                continue
            if not _is_told(task, info):
                continue
            self._shown.add(key)
            again = f"  attempt {task.attempt} failed, will be tried again" if task.state == "up_for_retry" else ""
            self.line("  " + _task(task.id, task.state, task.seconds) + again)
        if info.waits and info.waits.why != self._why:
            self._why = info.waits.why
            self.line(f"    waits: {one_line(info.waits.why)} ({info.waits.ahead} before it in the queue)")
        if info.progress and not info.over:
            tenth = int(10 * info.progress.fraction)
            if self._live:
                width = shutil.get_terminal_size().columns - 1
                text = _cut("    " + progress_text(info, bar=True), width)
                print(f"\r\x1b[K{text}", end="", file=self._stream, flush=True)
            elif tenth != self._tenth:
                self.line("    " + progress_text(info))
            self._tenth = tenth
        if info.over:
            for text in end_lines(info):
                self.line(text)
            took = "" if info.seconds is None else f" after {seconds(info.seconds)}"
            self.line(f"  {info.run_state}{took}")
