"""Holds the SQL of what HTTP reads of models and versions: one statement per response, without locks."""

from sqlalchemy import text

from services.chassis.executor.attempts import OPEN

_ALIASES = "coalesce((SELECT CAST(named -> r.version AS text) FROM model WHERE key = r.model), '[]')"
"""Joins the model only to the versions of the response."""
_FOUND = (
    f"SELECT CAST(r.state -> 'registered' AS text), r.registered_at, {_ALIASES}, r.state ->> 'description', "
    "CAST(r.tags AS text), r.version_state, r.state ->> 'state_reason', "
    "CAST(r.state ->> 'files_removed_at' AS timestamptz), CAST(r.state -> 'erased' AS text) FROM registration r"
)

HIGHEST_OF = """coalesce(
       (SELECT version FROM registration WHERE model = m.key AND version = m.state ->> 'highest' AND version_state IS DISTINCT FROM 'deleted'),
       (SELECT version FROM registration WHERE model = m.key AND version_state IS DISTINCT FROM 'deleted'
        ORDER BY CAST(string_to_array(version, '.') AS numeric[]) DESC LIMIT 1))"""
"""The highest version of the model `m` that is not deleted: as a rule the one that its row names."""

HIGHEST_VERSION = f"""{_FOUND} WHERE r.model = $1 AND r.version = (SELECT {HIGHEST_OF} FROM model m WHERE m.key = $1)"""
"""Reads the highest version of a model that is not deleted, with its aliases."""

NAMED_VERSION = f"""{_FOUND} WHERE r.model = $1 AND r.version = coalesce(
       (SELECT version FROM registration WHERE model = $1 AND version = $2),
       (SELECT aliases->>CAST($2 AS text) FROM model WHERE key = $1))"""
"""Reads the version of a model that $2 names, as a version or else as an alias."""

RECENT_VERSIONS = (
    f"{_FOUND} WHERE r.model = $1 AND r.registered_at IS NOT NULL AND r.version_state IS DISTINCT FROM 'deleted' "
    "ORDER BY r.registered_at DESC, r.key DESC LIMIT $2"
)
"""Reads the newest $2 versions of a model that are not deleted, with their aliases."""

MODEL = "SELECT CAST(state AS text) FROM model WHERE key = $1"
"""Reads one model."""

_MOVES_SHOWN = 20
MODEL_AND_MOVES = f"""SELECT CAST(state AS text), array(SELECT item FROM alias_move WHERE model = $1
       ORDER BY moved_at DESC, key DESC LIMIT {_MOVES_SHOWN}) FROM model WHERE key = $1"""
"""Reads one model with the newest moves of its aliases."""

REGISTRATION_OF = "SELECT key FROM registration WHERE model = $1 AND version = $2"
"""Reads the key of the row of a version."""

_OPEN = ", ".join(repr(status) for status in OPEN)
_USES = "$.results.*.facts.* ? (@ == $id)"
_SERVED = """(state #>> '{wish,model}', state #>> '{wish,version}'), (state #>> '{active,model}', state #>> '{active,version}'),
                   (state #>> '{target,model}', state #>> '{target,version}'),
                   (CASE WHEN CAST(state ->> 'warm_until' AS timestamptz) > clock_timestamp() THEN state #>> '{warm,model}' END,
                    state #>> '{warm,version}')"""
USED_BY = f"""SELECT used_by FROM (
       SELECT model || '@' || version FROM registration WHERE (started_from = $1 OR base_model = $1) AND version_state <> ALL (CAST($3 AS text[]))
       UNION ALL SELECT 'step ' || step || ' of job ' || job_id FROM attempt WHERE status IN ({_OPEN})
           AND (state #>> '{{requested,settings,base_model}}' = $1
                OR jsonb_path_exists(state -> 'requested', '{_USES}', jsonb_build_object('id', CAST($1 AS text))))
       UNION ALL SELECT 'job ' || job_id FROM attempt WHERE kind = 'resolve' AND status = 'completed'
           AND jsonb_path_exists(state #> '{{result,facts}}', '$.* ? (@ == $id)', jsonb_build_object('id', CAST($1 AS text)))
           AND NOT EXISTS (SELECT FROM job_end e WHERE e.key = job_id AND e.ended)
       UNION ALL SELECT 'deployment ' || key FROM deployment WHERE open AND EXISTS (
           SELECT FROM (VALUES {_SERVED}) AS served(model, version) WHERE model || '@' || version = $1))
       AS uses(used_by) ORDER BY used_by LIMIT $2"""
"""Reads what uses the version with the id $1: versions that continue from it and are in none of the states $3, open steps, jobs whose
first step found it and that have not ended, and deployments that serve it or may return to it; at most $2."""

MOVE_FILTERS = {"model": "model = {}", "alias": "alias = {}"}
"""The condition of each filter of the list of moves, with {} for the value."""

CHECK_FILTERS = {"model": "model = {}", "alias": "alias = {}", "version": "version = {}"}
"""The condition of each filter of the list of checks of gates, with {} for the value."""

REQUEST_FILTERS = {"model": "model = {}", "alias": "alias = {}", "status": "status = {}"}
"""The condition of each filter of the list of requests, with {} for the value."""

FILTERS = {
    "name": "r.model = {}",
    "alias": "(r.model, r.version) IN (SELECT key, aliases->>CAST({} AS text) FROM model)",
    "job_id": "r.job_id = {}",
    "requester": "r.requester = {}",
    "base_model": "r.base_model = {}",
    "dataset_sha256": "r.dataset_sha256 = {}",
    "started_from": "r.started_from = {}",
    "state": "r.version_state = {}",
}
"""The condition of each filter of the list of versions, with {} for the value."""
NOT_IN_STATE = "r.version_state IS DISTINCT FROM {}"
"""The condition that hides the versions in a state."""
_BESIDE = """',"purpose":', to_json(coalesce(r.purpose, 'answers')),
       ',"started_from":', coalesce(to_json(r.started_from), 'null'),
       ',"state":', to_json(coalesce(r.version_state, 'live')),
       ',"tags":', coalesce(CAST(r.tags AS text), '{}'),
       ',"erased_rows":', coalesce(r.erased_rows, 0)"""
ITEM, ROWS, TIME, KEY = (
    f"""concat(r.summary, {_BESIDE}, ',"aliases":', {_ALIASES}, '}}')""",
    "registration r", "r.registered_at", "r.key",
)  # fmt: skip
"""What the list of versions shows of which rows, and its order; `serving.statements.page` composes the statement."""

_NEEDED = """EXISTS (SELECT FROM registration c WHERE r.model || '@' || r.version IN (c.started_from, c.base_model)
       AND c.version_state IS DISTINCT FROM 'deleted')"""
_LONG_DELETED = """r.version_state = 'deleted'
       AND CAST(r.state ->> 'deleted_at' AS timestamptz) < clock_timestamp() - make_interval(secs => :seconds)"""
REFERENCED_BY = {
    "registration": f"""SELECT CAST(r.state AS text) FROM registration r WHERE ({_LONG_DELETED} AND NOT {_NEEDED}) IS NOT TRUE""",
    "deployment": "SELECT CAST(state AS text) FROM deployment WHERE open",
    "data_use": "SELECT concat(state #>> '{use,ledger,sha256}', ' ', state #>> '{use,outputs}') FROM data_use",
}
"""The texts in which digests stand that rows reference: of versions unless they were deleted some time ago and no other continues from them, of
deployments that somebody wants, and of uses of data the ledger and the rows that were stored, but not what the step read."""

OF_ARTIFACT = text(
    """SELECT state #>> '{registered,artifact,sha256}', model, key FROM registration
       WHERE state #>> '{registered,artifact,sha256}' = ANY (CAST(:digests AS text[]))"""
)
"""Reads the versions whose files are one of some artifacts."""
