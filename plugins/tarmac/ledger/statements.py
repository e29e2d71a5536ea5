"""All SQL of the database `tarmac` but its migrations: one named statement each, with what it is for.

Values are always parameters, written `%s` as psycopg2 wants them; what is interpolated are constants of this package.
`numbered` rewrites a statement for asyncpg. Every time is the database's own.
"""

from __future__ import annotations

import itertools
import re

from tarmac.admission.estimate import RECENT, SIMILAR
from tarmac.admission.placement import STARVED_AFTER
from tarmac.base.ids import LOCAL_HOST

CHANNEL = "tarmac_tower"
# What is notified when cores and memory of a host were released, and no device. Session names have a slash.
HOST_RELEASED = "host"
LEASE_SECONDS = 60
# A queued session renews its heartbeat every few seconds; one without a heartbeat for this long is not admitted.
SEEN_SECONDS = 30
# How many sessions one admission cycle reads of each kind; the rest are behind them in the queue and cost nothing.
CANDIDATES_AT_MOST = 64
# A cycle counts queued sessions up to here: to count more costs more than to ask whether any is left.
COUNTED = 4
# Another machine that has not answered for so long takes no session.
ANSWER_SECONDS = 30
# What was noted of a device longer ago than this is noted again, also where nothing has changed.
NOTE_SECONDS = 10
# A snapshot of another machine that is older says nothing of its devices.
SNAPSHOT_SECONDS = 10

OF_SESSION = "dag_id = %s AND run_id = %s"
"""The condition for one session's rows; its values are a SessionKey."""
_FULL_LEASE = f"clock_timestamp() + make_interval(secs => {LEASE_SECONDS})"
_WAITED = "extract(epoch FROM admitted_at - enqueued_at)"
# Of a CPU session, whose device_count is 0, the snapshot of the hosts.
# With the kinds of machines that may be started, each with those that start and how long its last ones took.
_SNAPSHOT = """
    (SELECT CASE device_count WHEN 0 THEN host_view ELSE view END FROM tower) AS view,
    extract(epoch FROM clock_timestamp())::float8 AS now,
    (SELECT json_agg(json_build_array(name, gpus, gpu_bytes, memory_bytes, millicpus,
        CASE barred WHEN '' THEN says ELSE barred END,
        (SELECT json_agg(json_build_array(machine.name, extract(epoch FROM clock_timestamp() - intended_at)::float8)
            ORDER BY number) FROM machine WHERE machine.kind = machine_kind.name AND state = 'starting'),
        (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY took) FROM
            (SELECT extract(epoch FROM ready_at - intended_at)::float8 AS took FROM machine
                WHERE machine.kind = machine_kind.name AND ready_at IS NOT NULL ORDER BY number DESC LIMIT 5) latest))
        ORDER BY name) FROM machine_kind) AS kinds
"""
_HAS_HEARTBEAT = f"seen_at > clock_timestamp() - interval '{SEEN_SECONDS} seconds'"
_IN_ORDER = f"ORDER BY priority DESC, sequence LIMIT {CANDIDATES_AT_MOST}"


def numbered(statement: str) -> str:
    """Return a statement with `$1`, `$2` and so on for its parameters, as asyncpg wants them. Pure."""
    count = itertools.count(1)
    return re.sub("%s", lambda _: f"${next(count)}", statement)


# ---- connections and the schema's versions ---------------------------------------------------------------------------

# The database's time.
NOW = "SELECT clock_timestamp()"

# Whether any migration was ever applied here.
HAS_VERSIONS = "SELECT to_regclass('schema_version') IS NOT NULL"

# The newest migration that is applied.
VERSION = "SELECT coalesce(max(version), 0) FROM schema_version"

# Of two processes that migrate at once, one waits here until the other has committed.
LOCK_MIGRATIONS = "SELECT pg_advisory_xact_lock(%s)"

# Where the versions are kept; made with the first migration.
MAKE_VERSIONS = """
    CREATE TABLE IF NOT EXISTS schema_version
        (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())
"""

# A migration was applied.
ADD_VERSION = "INSERT INTO schema_version (version) VALUES (%s)"

# A migration was taken back.
REMOVE_VERSION = "DELETE FROM schema_version WHERE version = %s"

# ---- devices and quarantine ------------------------------------------------------------------------------------------

# Each host, and whether it is another machine that does not answer.
_HOSTS = f"""
    (SELECT *, url <> '' AND (trouble <> '' OR answered_at < clock_timestamp() - interval '{ANSWER_SECONDS} seconds')
        AS silent FROM host) known_host
"""

# `closed`: why nothing may be placed on a device for the sake of its host.
_DEVICE_COLUMNS = f"""
    uuid, device.name, position, device.total_bytes, device.capacity_bytes, device.reserved_bytes, external_bytes,
    unusable, coalesce(reason, '') AS quarantine, device.host,
    CASE WHEN draining THEN 'its host is drained'
        WHEN device.host = '{LOCAL_HOST}' THEN ''
        WHEN silent IS DISTINCT FROM false THEN 'its host does not answer'
        WHEN taken_at IS NULL OR taken_at < clock_timestamp() - interval '{SNAPSHOT_SECONDS} seconds'
            THEN 'its host tells nothing of its GPUs'
        ELSE '' END AS closed
"""
_DEVICES = f"""
    device LEFT JOIN quarantine ON device_uuid = uuid AND released_at IS NULL
        LEFT JOIN {_HOSTS} ON known_host.name = device.host LEFT JOIN snapshot ON snapshot.host = device.host
"""

# All devices, each with the reason of its open quarantine.
DEVICES = f"SELECT {_DEVICE_COLUMNS} FROM {_DEVICES} ORDER BY uuid"

# What a snapshot says of devices. A capacity never shrinks below what is reserved already. Answers with all devices.
PUT_DEVICES = f"""
    INSERT INTO device (uuid, name, position, total_bytes, capacity_bytes, external_bytes, unusable, host)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::integer[], %s::bigint[], %s::bigint[], %s::bigint[], %s::text[],
        %s::text[])
    ON CONFLICT (uuid) DO UPDATE SET name = excluded.name, position = excluded.position, host = excluded.host,
        total_bytes = excluded.total_bytes, external_bytes = excluded.external_bytes,
        capacity_bytes = greatest(excluded.capacity_bytes, device.reserved_bytes),
        unusable = excluded.unusable, seen_at = clock_timestamp();
    {DEVICES}
"""

# Why a known device cannot be used now.
MARK_UNUSABLE = "UPDATE device SET unusable = %s WHERE uuid = %s"

# Takes a device out of use, once. It locks the tower first, as everywhere: a cycle holds it when it locks the devices.
QUARANTINE = """
    SELECT FROM tower FOR UPDATE;
    SELECT FROM device WHERE uuid = %s FOR UPDATE;
    INSERT INTO quarantine (device_uuid, reason) SELECT uuid, %s FROM device WHERE uuid = %s
        ON CONFLICT DO NOTHING
"""

# Gives a device back to the sessions.
RELEASE_QUARANTINE = """
    UPDATE quarantine SET released_at = clock_timestamp(), released_by = %s
    WHERE device_uuid = %s AND released_at IS NULL
"""

# ---- the queue -------------------------------------------------------------------------------------------------------

# A session's number in the order of arrival, which it keeps until it is over.
ARRIVE = "INSERT INTO arrival (dag_id, run_id) VALUES (%s, %s) ON CONFLICT DO NOTHING"

# Puts a session in the queue or renews its entry. A session that holds a reservation is not queued: the last statement
# sees what was committed while the one before waited for the session's row.
ENQUEUE = f"""
    {ARRIVE};
    INSERT INTO waiting (dag_id, run_id, task_id, priority, sequence, memory_bytes, device_count, policy, rule,
        estimate, data_bytes, signature, deadline_at, host_bytes, millicpus, wanted_host)
    VALUES (%s, %s, %s, coalesce((SELECT priority FROM arrival WHERE {OF_SESSION}), %s),
        (SELECT sequence FROM arrival WHERE {OF_SESSION}),
        %s, %s, %s, %s, %s, %s, %s, clock_timestamp() + make_interval(secs => %s), %s, %s, %s)
    ON CONFLICT (dag_id, run_id) DO UPDATE SET
        task_id = excluded.task_id, priority = excluded.priority, memory_bytes = excluded.memory_bytes,
        device_count = excluded.device_count, policy = excluded.policy, rule = excluded.rule,
        estimate = excluded.estimate, data_bytes = excluded.data_bytes, signature = excluded.signature,
        host_bytes = excluded.host_bytes, millicpus = excluded.millicpus, wanted_host = excluded.wanted_host,
        seen_at = clock_timestamp();
    DELETE FROM waiting WHERE {OF_SESSION} AND EXISTS (SELECT FROM reservation WHERE {OF_SESSION})
"""

# Takes a session out of the queue for good.
WITHDRAW = f"DELETE FROM arrival WHERE {OF_SESSION}; DELETE FROM waiting WHERE {OF_SESSION}"

# Another priority for a queued session, which makes cycles due: (priority, DAG, run, priority, DAG, run). Answers with
# 1 if it was queued, else with 0.
PRIORITISE = f"""
    SELECT FROM tower FOR UPDATE;
    UPDATE arrival SET priority = %s
    WHERE {OF_SESSION} AND EXISTS (SELECT FROM waiting w WHERE w.dag_id = arrival.dag_id AND w.run_id = arrival.run_id);
    WITH changed AS (UPDATE waiting SET priority = %s WHERE {OF_SESSION} RETURNING dag_id),
        due AS (UPDATE tower SET dirty = true, host_dirty = true FROM changed RETURNING pg_notify('{CHANNEL}', ''))
    SELECT count(*) FROM changed LEFT JOIN due ON true
"""

# The priority of a queued session.
PRIORITY = f"SELECT priority FROM waiting WHERE {OF_SESSION}"

# All queued sessions, in no order.
QUEUED = "SELECT dag_id, run_id FROM waiting"

# Whether a GPU session is queued.
ANY_QUEUED = "SELECT EXISTS (SELECT FROM waiting WHERE device_count > 0)"

# Whether one session is queued.
IS_QUEUED = f"SELECT true FROM waiting WHERE {OF_SESSION}"

# Sessions that have had a number for a day and are neither queued nor hold anything.
OLD_ARRIVALS = """
    SELECT dag_id, run_id FROM arrival a WHERE arrived_at < clock_timestamp() - interval '1 day'
        AND NOT EXISTS (SELECT FROM waiting w WHERE w.dag_id = a.dag_id AND w.run_id = a.run_id)
        AND NOT EXISTS (SELECT FROM reservation r WHERE r.dag_id = a.dag_id AND r.run_id = a.run_id)
    ORDER BY dag_id, run_id
"""

# Queued sessions whose need a new measurement may correct: it is no need that the request or an own attempt gave.
CORRECTABLE = """
    SELECT dag_id, run_id, data_bytes, device_count, wanted_host FROM waiting
    WHERE signature = %s AND rule IN ('history', 'computed', 'default', 'whole_device') AND device_count > 0
    ORDER BY sequence
"""

# Another need for a queued session.
CORRECT = f"UPDATE waiting SET memory_bytes = %s, rule = %s, estimate = %s WHERE {OF_SESSION}"

_PLACE = f"""
    SELECT (SELECT count(*) FROM waiting w WHERE (-w.priority, w.sequence) < (-mine.priority, mine.sequence)
            AND (w.device_count = 0) = (mine.device_count = 0)) AS ahead,
        memory_bytes, device_count, host_bytes, millicpus, wanted_host, {_SNAPSHOT},
        extract(epoch FROM deadline_at - clock_timestamp())::float8 AS seconds_left,
        extract(epoch FROM clock_timestamp() - enqueued_at)::float8 AS waited, estimate
"""

# A session's place in the queue, with what its reason is made of.
PLACE_IN_QUEUE = f"{_PLACE} FROM waiting mine WHERE {OF_SESSION}"

# The same, and the session's heartbeat.
BEAT = f"""
    WITH mine AS (UPDATE waiting SET seen_at = clock_timestamp() WHERE {OF_SESSION} RETURNING *)
    {_PLACE} FROM mine
"""

# The first queued sessions of one kind in order, with what each one's reason is made of: (whether of CPU sessions).
QUEUE = f"""
    SELECT dag_id, run_id, priority, estimate, memory_bytes, device_count, host_bytes, millicpus, wanted_host,
        enqueued_at, deadline_at, {_SNAPSHOT}
    FROM waiting WHERE (device_count = 0) = %s ORDER BY priority DESC, sequence LIMIT %s
"""

# What a cycle reads of the queue, a part for each kind of session that it may admit. CANDIDATES joins those parts that
# can find any: most cycles are made while all devices are full.
STARVED_CANDIDATES = (
    f"sequence < (SELECT below FROM starved) AND device_count > 0 AND {_HAS_HEARTBEAT} "
    f"ORDER BY sequence LIMIT {CANDIDATES_AT_MOST}"
)
# Sessions that ask for bytes: (most free bytes of a device; of the host that is best for so many devices the free bytes
# of the last of them, by their number; the same of each host; the hosts).
FITTING_CANDIDATES = (
    "memory_bytes <= %s AND memory_bytes <= CASE wanted_host WHEN '' THEN (%s::bigint[])[device_count] "
    f"ELSE (%s::bigint[])[array_position(%s::text[], wanted_host)][device_count] END AND {_HAS_HEARTBEAT} {_IN_ORDER}"
)
# Sessions that ask for whole devices: (how many are empty on the host that has most; on each host; the hosts).
WHOLE_CANDIDATES = (
    "memory_bytes IS NULL AND device_count BETWEEN 1 AND CASE wanted_host WHEN '' THEN %s "
    f"ELSE (%s::integer[])[array_position(%s::text[], wanted_host)] END AND {_HAS_HEARTBEAT} {_IN_ORDER}"
)


def candidates(parts: list[str]) -> str:
    """Return the statement that reads the sessions of these parts, each with the number below which it is starved."""
    columns = "dag_id, run_id, memory_bytes, device_count, policy, sequence, priority, wanted_host"
    union = " UNION ".join(f"(SELECT {columns} FROM waiting WHERE {part})" for part in parts)
    return f"""
        WITH starved AS MATERIALIZED (
            SELECT coalesce((SELECT sequence FROM admission WHERE NOT on_host ORDER BY sequence DESC
                OFFSET {STARVED_AFTER - 1} LIMIT 1), 0) AS below
        ), found AS ({union}) SELECT found.*, below FROM found, starved
    """


# ---- an admission cycle ----------------------------------------------------------------------------------------------

# What every cycle holds until it ends: the tower, then all devices.
LOCK = "SELECT FROM tower FOR UPDATE; SELECT FROM device ORDER BY uuid FOR UPDATE"

# The devices and bytes of sessions, and what they hold of a host, one row a session. The condition is filled in.
_RESERVATIONS = f"""
    SELECT dag_id, run_id, json_object_agg(device_uuid, bytes) FILTER (WHERE device_uuid IS NOT NULL) AS held,
        bool_and(whole) AS whole, max(token) AS token,
        max(rule) AS rule, max(data_bytes) AS data_bytes, max(signature) AS signature, max({_WAITED}) AS waited,
        max(host) AS host, max(bytes) FILTER (WHERE host IS NOT NULL) AS host_bytes, max(millicpus) AS millicpus
    FROM reservation WHERE {{}} GROUP BY dag_id, run_id ORDER BY dag_id, run_id
"""

# Begins a cycle: (in any case, or else only if the session (DAG, run) is queued). Answers with all that a cycle reads.
OPEN_CYCLE = f"""(boolean, text, text) AS
    WITH opened AS (
        UPDATE tower SET dirty = false, passed_at = clock_timestamp()
        WHERE $1 OR EXISTS (SELECT FROM waiting WHERE dag_id = $2 AND run_id = $3) RETURNING view
    ), known AS (
        SELECT {_DEVICE_COLUMNS}, seen_at < clock_timestamp() - interval '{NOTE_SECONDS} seconds' AS outdated
        FROM {_DEVICES} ORDER BY uuid
    ), holders AS ({_RESERVATIONS.format("device_uuid IS NOT NULL")}), told AS (
        SELECT host, body FROM snapshot
        WHERE taken_at >= clock_timestamp() - interval '{SNAPSHOT_SECONDS} seconds' ORDER BY host
    )
    SELECT (SELECT coalesce(json_agg(known), '[]') FROM known),
        (SELECT coalesce(json_agg(holders), '[]') FROM holders),
        (SELECT count(*) FROM (SELECT FROM waiting WHERE device_count > 0 LIMIT {COUNTED}) counted),
        view, (SELECT coalesce(json_agg(told), '[]') FROM told)
    FROM opened
"""

# Runs OPEN_CYCLE, which is prepared, under the locks: what is read after them is what was committed before.
EXECUTE_OPEN_CYCLE = f"{LOCK}; EXECUTE open_cycle (%s, %s, %s)"

# Admits queued sessions and notifies them, in one statement: a session gets all its devices or none.
ADMIT = f"""(text[], text[], boolean[], text[], bigint[]) AS
    WITH place AS (
        SELECT * FROM unnest($1, $2, $3, $4, $5)
            WITH ORDINALITY AS place (dag_id, run_id, whole, device_uuid, bytes, number)
    ), gone AS (
        DELETE FROM waiting USING (SELECT dag_id, run_id, min(number) AS number FROM place GROUP BY 1, 2) p
        WHERE waiting.dag_id = p.dag_id AND waiting.run_id = p.run_id
        RETURNING waiting.*, number
    ), noted AS (
        INSERT INTO admission (dag_id, run_id, sequence, enqueued_at)
        SELECT dag_id, run_id, sequence, enqueued_at FROM gone ORDER BY number
        RETURNING pg_notify('{CHANNEL}', dag_id || '/' || run_id)
    ), token AS MATERIALIZED (
        SELECT dag_id, run_id, nextval('fencing_token') AS token FROM gone
    ), held AS (
        INSERT INTO reservation (dag_id, run_id, device_uuid, bytes, whole, token, lease_until, enqueued_at, sequence,
            priority, rule, data_bytes, signature)
        SELECT dag_id, run_id, device_uuid, bytes, whole, token, {_FULL_LEASE}, enqueued_at, sequence, priority, rule,
            data_bytes, signature
        FROM gone JOIN token USING (dag_id, run_id) JOIN place USING (dag_id, run_id)
    ), beside AS (
        INSERT INTO reservation (dag_id, run_id, host, bytes, millicpus, beside, whole, token, lease_until, enqueued_at,
            sequence, priority, rule, data_bytes, signature)
        SELECT dag_id, run_id, host.name, host_bytes, millicpus, true,
            (SELECT bool_and(place.whole) FROM place WHERE place.dag_id = gone.dag_id AND place.run_id = gone.run_id),
            token, {_FULL_LEASE}, enqueued_at, sequence, priority, rule, data_bytes, signature
        FROM gone JOIN token USING (dag_id, run_id), host WHERE host_bytes > 0 AND host.name =
            (SELECT device.host FROM place JOIN device ON uuid = device_uuid
                WHERE place.dag_id = gone.dag_id AND place.run_id = gone.run_id LIMIT 1)
    ) SELECT dag_id, run_id FROM gone
"""

# Runs ADMIT, which is prepared.
EXECUTE_ADMIT = "EXECUTE admit (%s, %s, %s, %s, %s)"

# The cycle's snapshot, of which those that stay queued make their reasons.
STORE_SNAPSHOT = "UPDATE tower SET view = %s"

# One queued session undertakes to make the cycle that is due: something was released, or the last cycle is (seconds)
# ago. It has (seconds) to do so. While a cycle runs, none is due, and no session waits for the lock.
CLAIM_CYCLE = """
    UPDATE tower SET claimed_at = clock_timestamp()
    WHERE one IN (
        SELECT one FROM tower
        WHERE (dirty OR passed_at < clock_timestamp() - make_interval(secs => %s))
            AND claimed_at < clock_timestamp() - make_interval(secs => %s)
        FOR UPDATE SKIP LOCKED
    )
    RETURNING true
"""

# ---- reservations ----------------------------------------------------------------------------------------------------

# All live reservations, one row a session.
RESERVATIONS = _RESERVATIONS.format("true")

# What one session holds.
RESERVATION = _RESERVATIONS.format(OF_SESSION)

# A full lease for a session that was seen alive.
EXTEND = f"UPDATE reservation SET lease_until = {_FULL_LEASE} WHERE {OF_SESSION}"

# A new attempt takes a session's reservation over: a new token, so that the attempt before can change nothing any more.
CLAIM = f"""
    UPDATE reservation SET token = (SELECT nextval('fencing_token')), lease_until = {_FULL_LEASE}
    WHERE {OF_SESSION}
    RETURNING device_uuid, bytes, whole, token, rule, data_bytes, signature, {_WAITED}, host, millicpus
"""

# Renews a lease and notes what the session uses; no row where the token is another attempt's.
RENEW = f"""
    UPDATE reservation SET
        lease_until = {_FULL_LEASE},
        running_at = CASE WHEN %s THEN coalesce(running_at, clock_timestamp()) END,
        used_bytes = %s, peak_bytes = greatest(peak_bytes, %s)
    WHERE {OF_SESSION} AND token = %s
"""

# Releases a reservation and writes what was measured to history; no row where the token is another attempt's.
FINISH = f"""
    WITH gone AS (DELETE FROM reservation WHERE {OF_SESSION} AND token = %s RETURNING *)
    INSERT INTO history (dag_id, run_id, signature, data_bytes, devices, reserved_bytes, whole, peak_bytes,
        needed_bytes, outcome, reason, sequence, seconds, host)
    SELECT dag_id, run_id, max(signature), max(data_bytes), array_remove(array_agg(device_uuid), NULL),
        coalesce(min(bytes) FILTER (WHERE device_uuid IS NOT NULL), min(bytes)), bool_and(whole),
        greatest(max(peak_bytes), %s), %s, %s, %s, max(sequence),
        extract(epoch FROM clock_timestamp() - min(running_at)), max(host)
    FROM gone GROUP BY dag_id, run_id
"""

# How many slots gpu_pool needs: sessions that hold a reservation, and trainings that are queued to be repeated.
SLOTS = """
    SELECT (SELECT count(DISTINCT (dag_id, run_id)) FROM reservation WHERE device_uuid IS NOT NULL)
        + (SELECT count(*) FROM waiting WHERE task_id = %s)
"""

# Removes the oldest rows: all but (so many) admissions, those kept that decide which session is starved (all but the
# last so many of those on devices, and on hosts), and all but (so many) measurements.
PRUNE = """
    DELETE FROM admission WHERE id <= (SELECT max(id) FROM admission) - %s
        AND sequence < (SELECT a.sequence FROM admission a WHERE a.on_host = admission.on_host
            ORDER BY a.sequence DESC OFFSET %s LIMIT 1);
    DELETE FROM history WHERE id <= (SELECT max(id) FROM history) - %s
"""

# ---- what was measured -----------------------------------------------------------------------------------------------

_MEASURED = "SELECT outcome, reserved_bytes, peak_bytes, data_bytes, whole, needed_bytes FROM history"

# A session's earlier attempts, oldest first.
OWN_ATTEMPTS = f"{_MEASURED} WHERE {OF_SESSION} ORDER BY id"

# What sessions of one workload fingerprint measured, newest first, without one session.
MEASURED = f"{_MEASURED} WHERE signature = %s AND (dag_id, run_id) <> (%s, %s) ORDER BY id DESC LIMIT %s"

# What ended in the last (hours), and what is reserved now, oldest first: the last 2,000 attempts at most.
ATTEMPTS = """
    SELECT run_id, devices, host, ended_at - make_interval(secs => seconds) AS began_at, ended_at, outcome,
        reserved_bytes, peak_bytes
    FROM (SELECT * FROM history ORDER BY id DESC LIMIT 2000) latest
    WHERE ended_at > clock_timestamp() - make_interval(hours => %s) AND seconds IS NOT NULL
    UNION ALL
    SELECT run_id, array_remove(array_agg(device_uuid), NULL), max(host) FILTER (WHERE NOT beside), min(running_at),
        NULL, NULL, coalesce(min(bytes) FILTER (WHERE device_uuid IS NOT NULL), min(bytes)), max(peak_bytes)
    FROM reservation WHERE running_at IS NOT NULL GROUP BY dag_id, run_id
    ORDER BY began_at
"""

# When each reservation should end: when it began to run, or else was admitted, and the median of earlier successes with
# its fingerprint and about as much data. In seconds since 1970; null where history does not know.
_EXPECTED_END = f"""
        (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM
            (SELECT seconds FROM history h WHERE h.signature = r.signature AND outcome = 'success'
                AND seconds IS NOT NULL AND h.data_bytes <= r.data_bytes * {SIMILAR}
                AND r.data_bytes <= h.data_bytes * {SIMILAR}
             ORDER BY id DESC LIMIT {RECENT}) latest)
        + extract(epoch FROM coalesce(running_at, admitted_at))
"""
EXPECTED_ENDS = f"""
    SELECT device_uuid, bytes, {_EXPECTED_END}
    FROM reservation r WHERE device_uuid IS NOT NULL ORDER BY device_uuid, sequence
"""

# One row for each reservation of a device, as `make gpus` shows it, with when it should end.
HOLDERS = f"""
    SELECT device_uuid, run_id, bytes, used_bytes, peak_bytes, admitted_at, running_at,
        lease_until < clock_timestamp() AS suspect, ({_EXPECTED_END})::float8 AS ends
    FROM reservation r WHERE device_uuid IS NOT NULL ORDER BY device_uuid, sequence
"""

# ---- hosts: cores and memory for CPU sessions ------------------------------------------------------------------------

_HOST_COLUMNS = """
    name, total_bytes, total_millicpus, capacity_bytes, capacity_millicpus, reserved_bytes, reserved_millicpus,
    beside_bytes, beside_millicpus, url,
    CASE WHEN draining THEN 'is drained' WHEN silent THEN 'does not answer' ELSE '' END AS closed,
    trouble, CASE url WHEN '' THEN 0 ELSE extract(epoch FROM clock_timestamp() - answered_at) END::float8
        AS silent_seconds, extract(epoch FROM certificate_ends - clock_timestamp())::float8 AS certificate_seconds
"""

# All hosts, and whether each was measured in the last (seconds).
HOSTS = f"""
    SELECT {_HOST_COLUMNS}, measured_at > clock_timestamp() - make_interval(secs => %s) FROM {_HOSTS} ORDER BY name
"""

# What was measured of a host. A capacity never shrinks below what is reserved already. One that has changed makes a
# cycle due. It locks the tower first, as everywhere.
PUT_HOST = """
    SELECT FROM tower FOR UPDATE;
    WITH before AS (SELECT * FROM host WHERE name = %s), put AS (
        INSERT INTO host (name, total_bytes, total_millicpus, capacity_bytes, capacity_millicpus)
        VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (name) DO UPDATE SET
            total_bytes = excluded.total_bytes, total_millicpus = excluded.total_millicpus,
            capacity_bytes = greatest(excluded.capacity_bytes, host.reserved_bytes),
            capacity_millicpus = greatest(excluded.capacity_millicpus, host.reserved_millicpus),
            measured_at = clock_timestamp()
        RETURNING *
    ) UPDATE tower SET host_dirty = true FROM put LEFT JOIN before USING (name)
        WHERE (put.capacity_bytes, put.capacity_millicpus)
            IS DISTINCT FROM (before.capacity_bytes, before.capacity_millicpus)
"""

# Another machine that is to train, unless there is a host of this name.
ADD_HOST = """
    SELECT FROM tower FOR UPDATE;
    WITH made AS (
        INSERT INTO host (name, url, host_key, engine_id, total_bytes, total_millicpus, capacity_bytes,
            capacity_millicpus)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING name
    ) UPDATE tower SET host_dirty = true FROM made RETURNING name
"""

# Until when the certificate of a host's engine is valid: (time, name).
NOTE_CERTIFICATE = "UPDATE host SET certificate_ends = %s WHERE name = %s"

# How a host is reached.
CONNECTIONS = "SELECT name, url, host_key, engine_id FROM host WHERE url <> '' ORDER BY name"

# Forgets a host that no session holds anything of, with its devices: (name, name, name). A cycle is due, as those that
# wait for these devices wait for others now.
REMOVE_HOST = """
    SELECT FROM tower FOR UPDATE;
    DELETE FROM quarantine USING device, host WHERE device_uuid = uuid AND device.host = %s AND host.name = device.host
        AND url <> '' AND NOT EXISTS (SELECT FROM reservation WHERE reservation.host = host.name);
    DELETE FROM device USING host WHERE device.host = %s AND host.name = device.host
        AND url <> '' AND NOT EXISTS (SELECT FROM reservation WHERE reservation.host = host.name);
    WITH gone AS (
        DELETE FROM host WHERE name = %s AND url <> '' AND NOT EXISTS (SELECT FROM reservation WHERE host = name)
            RETURNING name
    ) UPDATE tower SET dirty = true FROM gone RETURNING name
"""

# Whether a host takes no new session: (draining, name).
DRAIN_HOST = """
    SELECT FROM tower FOR UPDATE;
    WITH changed AS (UPDATE host SET draining = %s WHERE name = %s RETURNING name)
    UPDATE tower SET dirty = true, host_dirty = true FROM changed RETURNING name
"""

# A host answered: (name). One that was silent takes sessions again, so a cycle is due, and those that wait hear of it.
HOST_ANSWERS = f"""
    SELECT FROM tower FOR UPDATE;
    WITH before AS (SELECT name, silent FROM {_HOSTS} WHERE name = %s), now AS (
        UPDATE host SET trouble = '', answered_at = clock_timestamp() FROM before WHERE host.name = before.name
            RETURNING before.silent
    ), due AS (
        UPDATE tower SET dirty = true, host_dirty = true FROM now WHERE now.silent
            RETURNING pg_notify('{CHANNEL}', '{HOST_RELEASED}')
    ) SELECT count(*) FROM due
"""

# A host's agent told of its devices just now: (host, what).
PUT_SNAPSHOT = """
    INSERT INTO snapshot (host, body) VALUES (%s, %s)
    ON CONFLICT (host) DO UPDATE SET taken_at = clock_timestamp(), body = excluded.body
"""

# What a host's agent told last, and how many seconds ago: (host).
SNAPSHOT = "SELECT body, extract(epoch FROM clock_timestamp() - taken_at)::float8 FROM snapshot WHERE host = %s"

# The same of all hosts.
SNAPSHOTS = "SELECT host, body, extract(epoch FROM clock_timestamp() - taken_at)::float8 AS seconds FROM snapshot"

# A host did not answer: (why, name). When it answered last is kept.
HOST_IS_SILENT = "UPDATE host SET trouble = %s WHERE name = %s AND trouble IS DISTINCT FROM %s"

# Begins a cycle of CPU sessions: (in any case, or else only if the session (DAG, run) is queued). The locks are those
# of every cycle, on hosts in place of devices; what is read after them is what was committed before.
OPEN_HOST_CYCLE = f"""
    SELECT FROM tower FOR UPDATE; SELECT FROM host ORDER BY name FOR UPDATE;
    WITH opened AS (
        UPDATE tower SET host_dirty = false, host_passed_at = clock_timestamp()
        WHERE %s OR EXISTS (SELECT FROM waiting WHERE {OF_SESSION}) RETURNING host_view
    ), known AS (SELECT {_HOST_COLUMNS} FROM {_HOSTS} ORDER BY name)
    SELECT (SELECT coalesce(json_agg(known), '[]') FROM known),
        (SELECT count(*) FROM (SELECT FROM waiting WHERE device_count = 0 LIMIT {CANDIDATES_AT_MOST}) counted),
        host_view
    FROM opened
"""

# The CPU sessions that a cycle may admit, each with the number below which it is starved: the starved ones, those that
# fit on one host, and one session: (hosts, free bytes and free thousandths of a core of each, DAG, run).
HOST_CANDIDATES = f"""
    WITH starved AS MATERIALIZED (
        SELECT coalesce((SELECT sequence FROM admission WHERE on_host ORDER BY sequence DESC
            OFFSET {STARVED_AFTER - 1} LIMIT 1), 0) AS below
    ), room AS (
        SELECT * FROM unnest(%s::text[], %s::bigint[], %s::integer[]) AS room (name, bytes, cores)
    ), found AS (
        (SELECT * FROM waiting WHERE {OF_SESSION} AND device_count = 0)
        UNION (SELECT * FROM waiting WHERE sequence < (SELECT below FROM starved) AND device_count = 0
            AND {_HAS_HEARTBEAT} ORDER BY sequence LIMIT {CANDIDATES_AT_MOST})
        UNION (SELECT * FROM waiting WHERE device_count = 0 AND {_HAS_HEARTBEAT}
            AND EXISTS (SELECT FROM room WHERE host_bytes <= room.bytes AND millicpus <= room.cores
                AND wanted_host IN ('', room.name)) {_IN_ORDER})
    ) SELECT dag_id, run_id, host_bytes, millicpus, wanted_host, sequence, priority, below FROM found, starved
"""

# Admits CPU sessions and notifies them, in one statement: (DAGs, runs, hosts, bytes, thousandths of a core, whether it
# is the whole host).
ADMIT_ON_HOSTS = f"""
    WITH place AS (
        SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::integer[], %s::boolean[])
            WITH ORDINALITY AS place (dag_id, run_id, on_host, bytes, cores, whole, number)
    ), gone AS (
        DELETE FROM waiting USING place
        WHERE waiting.dag_id = place.dag_id AND waiting.run_id = place.run_id AND device_count = 0
        RETURNING waiting.*, on_host, bytes, cores, whole, number
    ), noted AS (
        INSERT INTO admission (dag_id, run_id, sequence, enqueued_at, on_host)
        SELECT dag_id, run_id, sequence, enqueued_at, true FROM gone ORDER BY number
        RETURNING pg_notify('{CHANNEL}', dag_id || '/' || run_id)
    ), held AS (
        INSERT INTO reservation (dag_id, run_id, host, bytes, millicpus, whole, token, lease_until, enqueued_at,
            sequence, priority, rule, data_bytes, signature)
        SELECT dag_id, run_id, on_host, bytes, cores, whole, nextval('fencing_token'), {_FULL_LEASE}, enqueued_at,
            sequence, priority, rule, data_bytes, signature
        FROM gone
    ) SELECT dag_id, run_id FROM gone
"""

# The snapshot of a cycle of CPU sessions, of which those that stay queued make their reasons.
SHOW_HOSTS = "UPDATE tower SET host_view = %s"

# As CLAIM_CYCLE, for the cycle of CPU sessions.
CLAIM_HOST_CYCLE = """
    UPDATE tower SET host_claimed_at = clock_timestamp()
    WHERE one IN (
        SELECT one FROM tower
        WHERE (host_dirty OR host_passed_at < clock_timestamp() - make_interval(secs => %s))
            AND host_claimed_at < clock_timestamp() - make_interval(secs => %s)
        FOR UPDATE SKIP LOCKED
    )
    RETURNING true
"""

# One row for each session that holds something of a host, in the order of arrival, with when it should end.
HOST_HOLDERS = f"""
    SELECT run_id, host, bytes, millicpus, beside, admitted_at, running_at, lease_until < clock_timestamp() AS suspect,
        ({_EXPECTED_END})::float8 AS ends
    FROM reservation r WHERE host IS NOT NULL ORDER BY host, sequence
"""

# Queued CPU sessions whose need a new measurement may correct.
CORRECTABLE_ON_HOST = """
    SELECT dag_id, run_id, data_bytes, wanted_host FROM waiting
    WHERE signature = %s AND rule IN ('history', 'default') AND device_count = 0 ORDER BY sequence
"""

# Another need for a queued CPU session.
CORRECT_ON_HOST = (
    f"UPDATE waiting SET host_bytes = %s, rule = %s, estimate = %s WHERE {OF_SESSION} AND device_count = 0"
)

# ---- machines that are started when a session needs them -------------------------------------------------------------

# One process at a time plans: (an advisory lock's number).
LOCK_MACHINES = "SELECT pg_advisory_xact_lock(%s)"

# The machines that are there, or were in the last (days), or whose hosts still are. All times in seconds since 1970.
MACHINES = """
    SELECT machine.name, kind, price_per_hour, state, extract(epoch FROM intended_at)::float8,
        extract(epoch FROM until_at)::float8, extract(epoch FROM ready_at)::float8,
        extract(epoch FROM ending_at)::float8, extract(epoch FROM ended_at)::float8,
        extract(epoch FROM listed_at)::float8, extract(epoch FROM idle_at)::float8, provider_id, machine.url,
        machine.host_key, failed, machine.trouble, machine.url <> '' AND machine.url IS NOT DISTINCT FROM host.url,
        coalesce(draining, false),
        EXISTS (SELECT FROM reservation LEFT JOIN device ON uuid = device_uuid
            WHERE machine.name IN (reservation.host, device.host))
    FROM machine LEFT JOIN host ON host.name = machine.name AND host.url = machine.url
    WHERE state <> 'ended' OR ended_at > clock_timestamp() - make_interval(days => %s) OR host.name IS NOT NULL
    ORDER BY number
"""

# Notes which machines of a kind are idle, and since when: (kind).
NOTE_IDLE = """
    UPDATE machine SET idle_at = CASE
        WHEN EXISTS (SELECT FROM reservation LEFT JOIN device ON uuid = device_uuid
            WHERE machine.name IN (reservation.host, device.host)) THEN NULL
        ELSE coalesce(idle_at, clock_timestamp()) END
    WHERE kind = %s AND state = 'ready'
"""

# Notes that the provider listed machines: (names, ids, URLs, fingerprints of host keys).
NOTE_LISTED = """
    UPDATE machine SET listed_at = clock_timestamp(),
        provider_id = CASE provider_id WHEN '' THEN found.id ELSE provider_id END,
        url = CASE machine.url WHEN '' THEN found.url ELSE machine.url END,
        host_key = CASE machine.host_key WHEN '' THEN found.host_key ELSE machine.host_key END
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS found (name, id, url, host_key)
    WHERE machine.name = found.name AND state <> 'ended'
"""

# A machine that is to be started: (kind, price of an hour, now and its end in seconds since 1970).
INTEND_MACHINE = """
    INSERT INTO machine (kind, price_per_hour, intended_at, until_at)
    VALUES (%s, %s, to_timestamp(%s), to_timestamp(%s)) RETURNING name
"""

# What the provider said when it made a machine: (id, URL, fingerprint of its host key, name).
NOTE_CREATED = """
    UPDATE machine SET provider_id = %s, url = %s, host_key = %s, trouble = ''
    WHERE name = %s AND state = 'starting'
"""

# What went wrong with a machine last: (what, name).
NOTE_MACHINE_TROUBLE = "UPDATE machine SET trouble = %s WHERE name = %s AND state <> 'ended'"

# A machine has become a host: (name).
MACHINE_READY = """
    UPDATE machine SET state = 'ready', ready_at = clock_timestamp(), idle_at = clock_timestamp(), trouble = ''
    WHERE name = %s AND state = 'starting'
"""

# A machine is to be terminated: (whether it failed, why, name).
END_MACHINE = """
    UPDATE machine SET state = 'ending', ending_at = clock_timestamp(), failed = %s, trouble = %s
    WHERE name = %s AND state IN ('starting', 'ready')
"""

# The provider does not have a machine any more: (name).
MACHINE_ENDED = """
    UPDATE machine SET state = 'ended', ended_at = clock_timestamp() WHERE name = %s AND state = 'ending'
"""

# What runs on a machine that has ended is lost: (seconds after which a silent host is lost, name).
MACHINE_IS_LOST = """
    UPDATE host SET trouble = 'its machine has ended',
        answered_at = least(answered_at, clock_timestamp() - make_interval(secs => %s)) WHERE name = %s
"""

# A machine that had ended is there after all: (name). It costs money again, from its beginning on.
REVIVE_MACHINE = """
    UPDATE machine SET state = 'ending', ended_at = NULL, ending_at = clock_timestamp(),
        trouble = 'the provider lists it again' WHERE name = %s AND state = 'ended'
"""

# What is queued, in order, for the plan of machines: of at most (so many) sessions.
NEEDS = f"""
    SELECT dag_id, run_id, memory_bytes, device_count, policy, host_bytes, millicpus, wanted_host,
        extract(epoch FROM clock_timestamp() - enqueued_at)::float8 AS waited
    FROM waiting WHERE {_HAS_HEARTBEAT} ORDER BY priority DESC, sequence LIMIT %s
"""

# A declared kind: (name, GPUs, bytes on each, bytes of memory, thousandths of a core).
PUT_KIND = """
    INSERT INTO machine_kind (name, gpus, gpu_bytes, memory_bytes, millicpus) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (name) DO UPDATE SET gpus = excluded.gpus, gpu_bytes = excluded.gpu_bytes,
        memory_bytes = excluded.memory_bytes, millicpus = excluded.millicpus, barred = '', says = ''
"""

# Forgets kinds that are not declared any more: (those that are).
KEEP_KINDS = "DELETE FROM machine_kind WHERE name <> ALL(%s::text[])"

# The kinds.
KINDS = "SELECT name, gpus, gpu_bytes, memory_bytes, millicpus, barred, says FROM machine_kind ORDER BY name"

# What a machine of a kind offered, where that is less than was declared: (GPUs, bytes on each, memory, cores, name).
SHRINK_KIND = """
    UPDATE machine_kind SET gpus = least(gpus, %s), gpu_bytes = least(gpu_bytes, %s),
        memory_bytes = least(memory_bytes, %s), millicpus = least(millicpus, %s) WHERE name = %s
"""

# Why no machine of a kind is started now: (for the provider's sake, for the sake of number or money, name).
NOTE_KIND = """
    UPDATE machine_kind SET barred = %s, says = %s WHERE name = %s AND (barred, says) IS DISTINCT FROM (%s, %s)
"""

# What sessions cost on machines in the last (days): what a machine costs while a session holds it.
SESSION_MONEY = """
    SELECT run_id, sum(price_per_hour * seconds / 3600)::float8 AS money FROM (
        SELECT run_id, host, seconds FROM history
            WHERE seconds IS NOT NULL AND ended_at > clock_timestamp() - make_interval(days => %s)
        UNION ALL SELECT run_id, max(host), extract(epoch FROM clock_timestamp() - min(running_at))
            FROM reservation WHERE running_at IS NOT NULL GROUP BY dag_id, run_id
    ) held JOIN machine ON machine.name = held.host GROUP BY run_id ORDER BY money DESC, run_id LIMIT 50
"""

# ---- promotions ------------------------------------------------------------------------------------------------------

_STEP_COLUMNS = (
    "model, kind, from_version, to_version, who, why, score_name, from_score, to_score, margin, evaluation_set, at"
)

# All steps of a model, oldest first.
STEPS = f"SELECT {_STEP_COLUMNS} FROM promotion WHERE model = %s ORDER BY id"

# The step that brought what was in production at a time; null: now.
STEP_AT = f"""
    SELECT {_STEP_COLUMNS} FROM promotion WHERE model = %s AND at <= coalesce(%s, clock_timestamp())
    ORDER BY id DESC LIMIT 1
"""

# The last step of every model that has a row, with what is known of MLflow.
LAST_STEPS = """
    SELECT DISTINCT ON (model) model, kind, to_version, created_ms, alias_version
    FROM promoted_model LEFT JOIN promotion USING (model) ORDER BY model, id DESC
"""

# The models whose last step is of one kind, with the version that it took out of production.
ENDED_BY = """
    SELECT model, from_version FROM (
        SELECT DISTINCT ON (model) model, kind, from_version FROM promotion ORDER BY model, id DESC
    ) AS last WHERE kind = %s ORDER BY model
"""

# Makes a model's row, if there is none.
ADD_MODEL = "INSERT INTO promoted_model (model) VALUES (%s) ON CONFLICT DO NOTHING"

# Locks a model's row until the transaction ends: steps of one model take turns.
LOCK_MODEL = "SELECT created_ms, alias_version FROM promoted_model WHERE model = %s FOR UPDATE"

# A model's last step.
LAST_STEP = "SELECT kind, to_version, at FROM promotion WHERE model = %s ORDER BY id DESC LIMIT 1"

# Adds a step; the database gives its time and refuses one that does not start where the last one ended.
ADD_STEP = f"""
    INSERT INTO promotion (model, kind, from_version, to_version, who, why, score_name, from_score, to_score, margin,
        evaluation_set)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING {_STEP_COLUMNS}
"""

# Which registered model the history is of, and where its alias is.
REMEMBER_MODEL = "UPDATE promoted_model SET created_ms = %s, alias_version = %s WHERE model = %s"

# ---- counts for Prometheus -------------------------------------------------------------------------------------------

# Of each queue: how many wait, and for how many seconds the first of them has.
WAITING_COUNTS = """
    SELECT CASE device_count WHEN 0 THEN 'cpu' ELSE 'gpu' END AS queue, count(*) AS sessions,
        extract(epoch FROM clock_timestamp() - min(enqueued_at))::float8 AS seconds
    FROM waiting GROUP BY 1
"""

# How many attempts ended how. The latest 100,000 are kept.
OUTCOME_COUNTS = """
    SELECT CASE WHEN devices = '{}' THEN 'cpu' ELSE 'gpu' END AS queue, outcome, count(*) AS attempts
    FROM history GROUP BY 1, 2
"""

# ---- trainings that are recorded in MLflow ---------------------------------------------------------------------------

ADD_RECORDING = "INSERT INTO recording (container_id, dag_id, run_id) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"

# Oldest first.
RECORDINGS = "SELECT container_id, dag_id, run_id FROM recording ORDER BY began_at, container_id"

REMOVE_RECORDING = "DELETE FROM recording WHERE container_id = %s"

KEEP_UNTRAINED_RUN = """
    INSERT INTO untrained_run (dag_id, run_id, experiment_id, mlflow_run_id) VALUES (%s, %s, %s, %s)
    ON CONFLICT (dag_id, run_id) DO UPDATE
        SET experiment_id = excluded.experiment_id, mlflow_run_id = excluded.mlflow_run_id
"""

UNTRAINED_RUN = "SELECT experiment_id, mlflow_run_id FROM untrained_run WHERE dag_id = %s AND run_id = %s"

# ---- what people are told --------------------------------------------------------------------------------------------

# Of several processes that send messages, one does, for as long as its connection lasts. Repeating it is harmless.
CLAIM_NOTIFIER = "SELECT pg_try_advisory_lock(%s)"

# Since when people are told; the first call decides it.
TOLD_FROM = """
    INSERT INTO notifier DEFAULT VALUES ON CONFLICT DO NOTHING;
    SELECT told_from FROM notifier
"""

# Those of some facts that are not noted yet, in the order given.
NEW_FACTS = """
    SELECT fact FROM unnest(%s::text[]) WITH ORDINALITY AS asked (fact, number)
    WHERE NOT EXISTS (SELECT FROM notice WHERE notice.fact = asked.fact) ORDER BY number
"""

# Notes a fact once, for its targets: (fact, kind, title, body, targets).
ADD_NOTICE = """
    WITH made AS (
        INSERT INTO notice (fact, kind, title, body) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING id
    ) INSERT INTO delivery (notice_id, target) SELECT id, target FROM made, unnest(%s::text[]) AS target
"""

# Devices that came into quarantine since a time.
QUARANTINED_SINCE = """
    SELECT quarantine.id, device_uuid, name, reason, since FROM quarantine JOIN device ON uuid = device_uuid
    WHERE since >= %s ORDER BY quarantine.id
"""

# Other machines that have not answered for more than (seconds), and how many sessions hold something there.
SILENT_HOSTS = """
    SELECT name, trouble, answered_at, extract(epoch FROM clock_timestamp() - answered_at)::float8 AS silent,
        (SELECT count(DISTINCT (dag_id, run_id)) FROM reservation WHERE reservation.host = host.name) AS sessions
    FROM host WHERE url <> '' AND trouble <> '' AND answered_at < clock_timestamp() - make_interval(secs => %s)
    ORDER BY name
"""

# Steps of the history of promotions since a time.
PROMOTED_SINCE = """
    SELECT id, model, kind, from_version, to_version, who, why FROM promotion WHERE at >= %s ORDER BY id
"""

# Sessions that have waited for more than (seconds).
LONG_WAITING = f"""
    SELECT dag_id, run_id, memory_bytes, device_count, host_bytes, millicpus, wanted_host, enqueued_at, {_SNAPSHOT},
        extract(epoch FROM clock_timestamp() - enqueued_at)::float8 AS waited
    FROM waiting WHERE enqueued_at < clock_timestamp() - make_interval(secs => %s)
    ORDER BY enqueued_at LIMIT 1000
"""

_OPEN = "sent_at IS NULL AND given_up_at IS NULL"

# The open deliveries of a target, oldest first: (target, how many at most).
OPEN_DELIVERIES = f"""
    SELECT id, kind, title, body, attempts, next_at <= clock_timestamp() AS due,
        extract(epoch FROM clock_timestamp() - made_at)::float8 AS age
    FROM delivery JOIN notice ON id = notice_id WHERE target = %s AND {_OPEN} ORDER BY id LIMIT %s
"""

# How many messages a target got in the last (seconds).
MESSAGES_SENT = """
    SELECT count(DISTINCT sent_at) FROM delivery
    WHERE target = %s AND sent_at > clock_timestamp() - make_interval(secs => %s)
"""

# A message of these notices has arrived at a target.
DELIVERED = f"UPDATE delivery SET sent_at = now() WHERE target = %s AND notice_id = ANY(%s) AND {_OPEN}"

# It has not. It is tried again in (seconds), and what is older than (seconds) is given up.
NOT_DELIVERED = f"""
    UPDATE delivery SET attempts = attempts + 1, problem = %s,
        next_at = clock_timestamp() + make_interval(secs => %s),
        given_up_at = CASE WHEN made_at < clock_timestamp() - make_interval(secs => %s) THEN clock_timestamp() END
    FROM notice WHERE id = notice_id AND target = %s AND notice_id = ANY(%s) AND {_OPEN}
"""

# Targets that are configured no more get nothing: (those that are).
CLOSE_TARGETS = f"""
    UPDATE delivery SET given_up_at = clock_timestamp(), problem = 'the target is in env/notify.toml no more'
    WHERE {_OPEN} AND target <> ALL(%s::text[])
"""

# Forgets notices older than (seconds) that wait for no target.
PRUNE_NOTICES = f"""
    DELETE FROM notice WHERE made_at < clock_timestamp() - make_interval(secs => %s)
        AND NOT EXISTS (SELECT FROM delivery WHERE notice_id = id AND {_OPEN})
"""

# Of each target: messages that wait, the age of the oldest in seconds, the newest problem of those, and how many were
# given up in the last day.
DELIVERY_COUNTS = f"""
    SELECT target, count(*) FILTER (WHERE {_OPEN}) AS open,
        extract(epoch FROM clock_timestamp() - min(made_at) FILTER (WHERE {_OPEN}))::float8 AS seconds,
        coalesce((array_agg(problem ORDER BY attempts DESC) FILTER (WHERE {_OPEN}))[1], '') AS problem,
        count(*) FILTER (WHERE given_up_at > clock_timestamp() - interval '1 day') AS given_up
    FROM delivery JOIN notice ON id = notice_id GROUP BY target ORDER BY target
"""

# ---- samples of devices and of sessions ------------------------------------------------------------------------------

# Whether any session trains on a device.
ANY_ON_DEVICES = "SELECT EXISTS (SELECT FROM reservation WHERE device_uuid IS NOT NULL AND running_at IS NOT NULL)"

# What was read of devices just now: (uuids, used bytes, utilisations, temperatures, watts), and with it a sample of
# each session that trains on them: (uuids, utilisations, watts).
ADD_SAMPLES = """
    INSERT INTO device_sample (span, at, device_uuid, used_bytes, utilisation, temperature, watts)
    SELECT 1, now(), * FROM unnest(%s::text[], %s::bigint[], %s::real[], %s::smallint[], %s::real[])
    ON CONFLICT DO NOTHING;
    INSERT INTO session_sample (span, at, dag_id, run_id, samples, reserved_bytes, used_bytes, utilisation, watts)
    SELECT 1, now(), dag_id, run_id, 1, max(bytes), max(used_bytes), avg(seen.utilisation), sum(seen.watts)
    FROM reservation
        JOIN unnest(%s::text[], %s::real[], %s::real[]) AS seen (uuid, utilisation, watts) ON device_uuid = uuid
    WHERE running_at IS NOT NULL GROUP BY dag_id, run_id ON CONFLICT DO NOTHING
"""

_OVER = "span = 1 AND at < date_trunc('minute', now()) AND at >= date_trunc('minute', now()) - interval '1 hour'"

# Makes a sample of each minute that is over, once, and adds those of sessions to their summaries; forgets seconds after
# an hour and minutes after 30 days.
ROLL_UP = f"""
    INSERT INTO device_sample (span, at, device_uuid, used_bytes, utilisation, temperature, watts)
    SELECT 60, date_trunc('minute', at), device_uuid, max(used_bytes), avg(utilisation), max(temperature), avg(watts)
    FROM device_sample WHERE {_OVER} GROUP BY 2, 3 ON CONFLICT DO NOTHING;
    WITH made AS (
        INSERT INTO session_sample (span, at, dag_id, run_id, samples, reserved_bytes, used_bytes, utilisation, watts)
        SELECT 60, date_trunc('minute', at), dag_id, run_id, count(*), max(reserved_bytes), max(used_bytes),
            avg(utilisation), avg(watts)
        FROM session_sample WHERE {_OVER} GROUP BY 2, 3, 4 ON CONFLICT DO NOTHING RETURNING *
    ) INSERT INTO session_usage AS known (dag_id, run_id, first_at, last_at, samples, reserved_bytes, peak_bytes,
        utilisation, watts)
    SELECT dag_id, run_id, min(at), max(at) + interval '1 minute', sum(samples), max(reserved_bytes), max(used_bytes),
        sum(utilisation * samples) / sum(samples) FILTER (WHERE utilisation IS NOT NULL),
        sum(watts * samples) / sum(samples) FILTER (WHERE watts IS NOT NULL)
    FROM made GROUP BY dag_id, run_id
    ON CONFLICT (dag_id, run_id) DO UPDATE SET
        last_at = excluded.last_at, samples = known.samples + excluded.samples,
        reserved_bytes = greatest(known.reserved_bytes, excluded.reserved_bytes),
        peak_bytes = greatest(known.peak_bytes, excluded.peak_bytes),
        utilisation = coalesce((known.utilisation * known.samples + excluded.utilisation * excluded.samples)
            / (known.samples + excluded.samples), known.utilisation, excluded.utilisation),
        watts = coalesce((known.watts * known.samples + excluded.watts * excluded.samples)
            / (known.samples + excluded.samples), known.watts, excluded.watts);
    DELETE FROM device_sample WHERE (span = 1 AND at < now() - interval '61 minutes')
        OR (span = 60 AND at < now() - interval '30 days');
    DELETE FROM session_sample WHERE (span = 1 AND at < now() - interval '61 minutes')
        OR (span = 60 AND at < now() - interval '30 days')
"""

# What each device did last, where that is no longer ago than (seconds).
LATEST_SAMPLES = """
    SELECT uuid AS device_uuid, utilisation, temperature, watts FROM device CROSS JOIN LATERAL (
        SELECT * FROM device_sample WHERE device_uuid = uuid AND span = 1
            AND at > clock_timestamp() - make_interval(secs => %s) ORDER BY at DESC LIMIT 1
    ) AS last
"""

# A session's samples, oldest first, so many at most: seconds as far as they are kept, minutes before that.
SESSION_SAMPLES = f"""
    WITH mine AS (
        SELECT * FROM session_sample WHERE {OF_SESSION} AND (span = 1 OR at < coalesce(
            (SELECT min(at) FROM session_sample WHERE {OF_SESSION} AND span = 1), 'infinity'))
    ), edge AS (
        SELECT min(at) AS first, greatest(extract(epoch FROM max(at) - min(at)) / %s, 1) AS step FROM mine
    )
    SELECT min(at) AS at, max(reserved_bytes) AS reserved_bytes, max(used_bytes) AS used_bytes,
        avg(utilisation) AS utilisation, avg(watts) AS watts
    FROM mine, edge GROUP BY floor(extract(epoch FROM at - first) / step) ORDER BY 1
"""

# A session's summary.
SESSION_USAGE = f"""
    SELECT first_at, last_at, samples, reserved_bytes, peak_bytes, utilisation, watts
    FROM session_usage WHERE {OF_SESSION}
"""
