-- refold: the only schema.
--
-- Above the line: the log, which is the truth. Below it: the views, which are folded from the
-- log and can be dropped and rebuilt at any moment.
--
-- Times in the log are microseconds since 1970-01-01 UTC; in the views they are text in UTC,
-- 'YYYY-MM-DD HH:MM:SS.ffffff'.


-- section: log

-- What happened, in the order in which it happened. Never updated, never deleted.
CREATE TABLE IF NOT EXISTS events (
    position        INTEGER PRIMARY KEY,  -- 1, 2, 3 …: the order of all events
    stream          TEXT    NOT NULL,     -- the entity: run-5, task-17, store …
    version         INTEGER NOT NULL,     -- 1, 2, 3 … within the stream
    previous        INTEGER,              -- position of the stream's event before this one
    type            TEXT    NOT NULL,     -- RunCreated, TaskStarted …
    schema_version  INTEGER NOT NULL,     -- of the type; older ones are upcast when read
    data            TEXT    NOT NULL,     -- the event, JSON
    metadata        TEXT    NOT NULL,     -- command_id, actor, correlation, cause; JSON
    recorded_at     INTEGER NOT NULL,     -- microseconds since 1970-01-01 UTC; never runs back
    digest          BLOB                  -- chains it to the one before it; NULL up to store.unchecked
);

CREATE TRIGGER IF NOT EXISTS events_are_never_updated BEFORE UPDATE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never updated: append a new one that corrects it');
END;

CREATE TRIGGER IF NOT EXISTS events_are_never_deleted BEFORE DELETE ON events
BEGIN
    SELECT RAISE(ABORT, 'events are never deleted: append a new one that corrects it');
END;

CREATE TRIGGER IF NOT EXISTS events_are_never_replaced BEFORE INSERT ON events
WHEN EXISTS (SELECT 1 FROM events WHERE position = new.position)
BEGIN
    SELECT RAISE(ABORT, 'events are never replaced: append a new one that corrects it');
END;

-- The last event of each stream. With events.previous this is the index by stream: a walk back
-- along a chain, at a fraction of what an index over (stream, version) costs every append.
CREATE TABLE IF NOT EXISTS streams (
    stream    TEXT    PRIMARY KEY,
    version   INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    digest    BLOB                        -- of that event
) WITHOUT ROWID;

-- Events that stand in another stream than the one that they name. There are hardly ever any; but
-- without them the streams alone would not tell the whole history of an entity.
CREATE TABLE IF NOT EXISTS strays (
    position  INTEGER PRIMARY KEY
);

-- Commands that were sent with an id: sending one again returns the first result.
CREATE TABLE IF NOT EXISTS commands (
    command_id  TEXT    PRIMARY KEY,
    command     TEXT    NOT NULL,     -- RequestStop …, or append, with a digest of what was asked
    first       INTEGER,              -- position of its first event, NULL if it appended none
    last        INTEGER,
    result      TEXT    NOT NULL      -- JSON
) WITHOUT ROWID;

-- Large or opaque things, stored once under their SHA-256; events hold the digest.
CREATE TABLE IF NOT EXISTS payloads (
    digest   TEXT PRIMARY KEY,
    content  BLOB NOT NULL
);

CREATE TRIGGER IF NOT EXISTS payloads_are_never_updated BEFORE UPDATE ON payloads
BEGIN
    SELECT RAISE(ABORT, 'payloads are never updated: they are named by their content');
END;

CREATE TRIGGER IF NOT EXISTS payloads_are_never_deleted BEFORE DELETE ON payloads
BEGIN
    SELECT RAISE(ABORT, 'payloads are never deleted: events refer to them');
END;

CREATE TRIGGER IF NOT EXISTS payloads_are_never_replaced BEFORE INSERT ON payloads
WHEN EXISTS (SELECT 1 FROM payloads WHERE digest = new.digest AND content <> new.content)
BEGIN
    SELECT RAISE(ABORT, 'payloads are never replaced: they are named by their content');
END;

-- Which views this store holds, and how far each is folded: NULL means up to the last event,
-- because every append folds it in the same transaction.
CREATE TABLE IF NOT EXISTS projections (
    name      TEXT    PRIMARY KEY,
    version   INTEGER NOT NULL,
    position  INTEGER
) WITHOUT ROWID;


-- section: store

-- What log this is: one row. Log format 2 begins with it; stores of format 1 are given it.
CREATE TABLE IF NOT EXISTS store (
    id           TEXT    PRIMARY KEY,  -- random, 32 hexadecimal digits; copies of the log share it
    format       INTEGER NOT NULL,     -- of the tables of the log
    level        INTEGER NOT NULL,     -- of its events: a release that knows a lower one is refused
    origin       TEXT,                 -- the id of the log that this one was forked from
    unchecked    INTEGER NOT NULL,     -- events up to this position have no digest: format 1
    gaps         INTEGER NOT NULL,     -- 1: a server has drawn positions, which may leave some out
    key_id       TEXT,                 -- names the key that digests are signed with, NULL: none
    keyed_after  INTEGER,              -- events after this position are signed
    created_at   INTEGER NOT NULL,     -- microseconds since 1970-01-01 UTC
    tags         TEXT                  -- SQLite: which files its write-ahead log may be played over
) WITHOUT ROWID;

CREATE TRIGGER IF NOT EXISTS events_have_digests BEFORE INSERT ON events
WHEN new.digest IS NULL AND new.position > (SELECT max(unchecked) FROM store)
BEGIN
    SELECT RAISE(ABORT, 'an event needs its digest: append it with refold');
END;


-- ═════════════════════════════════ the line ═════════════════════════════════
-- In every view, position is that of the last event that changed the row.
-- Only what is polled is indexed: each page that a commit touches costs it about as much as the
-- insertion of the event itself. A partial index is used by SQLite only if its condition holds the
-- query's own term, so conditions are written with = and OR, never with IN:
-- https://www.sqlite.org/partialindex.html#queries_using_partial_indexes


-- section: experiments

CREATE TABLE experiments (
    experiment_id     INTEGER PRIMARY KEY,
    experiment_name   TEXT    NOT NULL,
    kind              TEXT    NOT NULL,  -- fit evals
    status            TEXT    NOT NULL,  -- NEW RUNNING COMPLETED FAILED CANCELLED, evals in small letters
    experiments_path  TEXT,
    num_shards        INTEGER,
    num_actors        INTEGER,
    num_cpus          REAL,
    num_gpus          REAL,
    error             TEXT,
    created_at        TEXT    NOT NULL,
    updated_at        TEXT    NOT NULL,
    position          INTEGER NOT NULL
);


-- section: runs

CREATE TABLE runs_folded (
    run_id         INTEGER PRIMARY KEY,
    experiment_id  INTEGER NOT NULL,
    run_name       TEXT    NOT NULL,
    mlflow_run_id  TEXT,
    status         TEXT    NOT NULL,  -- NEW ONGOING COMPLETED FAILED STOPPED KILLED
    source         TEXT    NOT NULL,  -- USER CLONE_MODIFY
    ended_by       TEXT,              -- COMPLETED FAILED KILLED STOPPED
    parent_run_id  INTEGER,
    warm_start     INTEGER NOT NULL,  -- 0 1
    config_digest  TEXT,              -- names the payload
    seed           INTEGER,
    num_chunks     INTEGER,
    current_chunk  INTEGER NOT NULL,
    current_epoch  INTEGER NOT NULL,
    metrics        TEXT    NOT NULL,  -- JSON
    metric_words   TEXT,              -- JSON: nan, inf, -inf, by their names or paths
    created_at     TEXT    NOT NULL,
    updated_at     TEXT    NOT NULL,
    position       INTEGER NOT NULL
);


-- What people and programs read: with the configuration, which is stored once, as a payload.
CREATE VIEW runs AS
SELECT run_id, experiment_id, run_name, mlflow_run_id, status, source, ended_by, parent_run_id,
       warm_start, content AS config_leaf, seed, num_chunks, current_chunk, current_epoch, metrics,
       metric_words, created_at, updated_at, position,
       CASE  -- the configuration: JSON text (F701) or its outline (F702); it may be signed (FB)
           WHEN substr(content, 1, 2) = x'F701' THEN CAST(substr(content, 3) AS TEXT)
           WHEN substr(content, 1, 2) = x'F702'
           THEN CAST(substr(content, 3, instr(substr(content, 3), x'00') - 1) AS TEXT)
           WHEN substr(content, 1, 1) <> x'FB' THEN NULL
           WHEN substr(content, 34, 2) = x'F701' THEN CAST(substr(content, 36) AS TEXT)
           WHEN substr(content, 34, 2) = x'F702'
           THEN CAST(substr(content, 36, instr(substr(content, 36), x'00') - 1) AS TEXT)
       END AS config_json
FROM runs_folded LEFT JOIN payloads ON digest = config_digest;


-- section: run_metrics

-- What was measured of each metric of a run; runs.metrics has the last values alone.
CREATE TABLE run_metrics (
    metric_key     TEXT    PRIMARY KEY,  -- such as 5/loss
    run_id         INTEGER NOT NULL,
    metric         TEXT    NOT NULL,
    count          INTEGER NOT NULL,  -- of points
    last           REAL,              -- NULL: see last_word
    last_step      INTEGER,
    last_word      TEXT,              -- nan inf -inf
    first          REAL,
    first_step     INTEGER,
    min            REAL,              -- of the finite ones
    min_step       INTEGER,
    max            REAL,
    max_step       INTEGER,
    created_at     TEXT    NOT NULL,
    updated_at     TEXT    NOT NULL,
    position       INTEGER NOT NULL
);

CREATE INDEX run_metrics_of_runs ON run_metrics (run_id, metric);


-- section: worker_task

CREATE TABLE worker_task (
    task_id        INTEGER PRIMARY KEY,
    run_id         INTEGER NOT NULL,
    worker_id      INTEGER NOT NULL,
    chunk_id       INTEGER NOT NULL,
    epoch          INTEGER NOT NULL,
    status         TEXT    NOT NULL,    -- SCHEDULED IN_PROGRESS COMPLETED FAILED
    error          TEXT,                -- why it failed
    claim          INTEGER,             -- position of the event that started it last: who reports needs it
    attempts       INTEGER NOT NULL,    -- how often it was started
    offered_after  INTEGER,             -- microseconds since 1970-01-01 UTC: not to be claimed earlier
    created_at     TEXT    NOT NULL,
    updated_at     TEXT    NOT NULL,
    position       INTEGER NOT NULL
);

-- Only open tasks are polled for, so only they are indexed: the index stays small for ever.
CREATE INDEX worker_task_open ON worker_task (status, worker_id, task_id)
WHERE status = 'SCHEDULED' OR status = 'IN_PROGRESS';


-- section: controller_progress

CREATE TABLE controller_progress (
    controller_id  INTEGER PRIMARY KEY,  -- always 1
    task           TEXT    NOT NULL,
    status         TEXT    NOT NULL,     -- PENDING SCHEDULED IN_PROGRESS COMPLETED FAILED SKIPPED
    created_at     TEXT    NOT NULL,
    updated_at     TEXT    NOT NULL,
    position       INTEGER NOT NULL
);


-- section: worker_progress

CREATE TABLE worker_progress (
    worker_id   INTEGER PRIMARY KEY,
    task        TEXT    NOT NULL,
    status      TEXT    NOT NULL,
    created_at  TEXT    NOT NULL,
    updated_at  TEXT    NOT NULL,
    position    INTEGER NOT NULL
);


-- section: interactive_control

CREATE TABLE interactive_control_folded (
    ic_id          INTEGER PRIMARY KEY,
    run_id         INTEGER NOT NULL,
    operation      TEXT    NOT NULL,  -- CLONE_MODIFY STOP RESUME DELETE
    status         TEXT    NOT NULL,  -- PENDING IN_PROGRESS COMPLETED FAILED SKIPPED
    config_digest  TEXT,
    warm_start     INTEGER NOT NULL,
    error          TEXT,              -- why it failed or was skipped
    created_at     TEXT    NOT NULL,
    updated_at     TEXT    NOT NULL,
    position       INTEGER NOT NULL
);

CREATE INDEX interactive_control_pending ON interactive_control_folded (ic_id)
WHERE status = 'PENDING';

CREATE VIEW interactive_control AS
SELECT ic_id, run_id, operation, status, content AS config_leaf, warm_start, error,
       created_at, updated_at, position
FROM interactive_control_folded LEFT JOIN payloads ON digest = config_digest;


-- section: contexts

CREATE TABLE contexts (
    context_id          INTEGER PRIMARY KEY,
    context_hash        TEXT    NOT NULL,
    rag_config_json     TEXT,
    prompt_config_json  TEXT,
    status              TEXT    NOT NULL,  -- pending building ready failed deleted
    error               TEXT,
    started_at          TEXT,
    completed_at        TEXT,
    duration_seconds    REAL,
    created_at          TEXT    NOT NULL,
    updated_at          TEXT    NOT NULL,
    position            INTEGER NOT NULL
);

CREATE INDEX contexts_by_hash ON contexts (context_hash);

-- section: pipelines

CREATE TABLE pipelines (
    pipeline_id              INTEGER PRIMARY KEY,
    experiment_id            INTEGER NOT NULL,
    context_id               INTEGER,
    pipeline_name            TEXT    NOT NULL,
    pipeline_type            TEXT    NOT NULL,
    model_config_json        TEXT,
    sampling_params_json     TEXT,
    status                   TEXT    NOT NULL,  -- new ongoing completed stopped deleted failed
    current_shard_id         INTEGER,
    shards_completed         INTEGER NOT NULL,
    total_samples_processed  INTEGER NOT NULL,
    error                    TEXT,
    created_at               TEXT    NOT NULL,
    updated_at               TEXT    NOT NULL,
    position                 INTEGER NOT NULL
);


-- section: actor_tasks

CREATE TABLE actor_tasks (
    task_id           INTEGER PRIMARY KEY,
    experiment_id     INTEGER NOT NULL,
    pipeline_id       INTEGER NOT NULL,
    actor_id          INTEGER NOT NULL,
    shard_id          INTEGER NOT NULL,
    status            TEXT    NOT NULL,  -- scheduled in_progress completed failed
    error             TEXT,
    started_at        TEXT,
    completed_at      TEXT,
    duration_seconds  REAL,
    claim             INTEGER,           -- position of the event that started it last
    attempts          INTEGER NOT NULL,  -- how often it was started
    offered_after     INTEGER,           -- microseconds since 1970-01-01 UTC
    created_at        TEXT    NOT NULL,
    updated_at        TEXT    NOT NULL,
    position          INTEGER NOT NULL
);

CREATE INDEX actor_tasks_open ON actor_tasks (status, actor_id, task_id)
WHERE status = 'scheduled' OR status = 'in_progress';


-- section: pipeline_requests

CREATE TABLE pipeline_requests (
    ic_id         INTEGER PRIMARY KEY,
    pipeline_id   INTEGER,           -- NULL: the data name it
    operation     TEXT    NOT NULL,  -- stop resume delete clone
    status        TEXT    NOT NULL,  -- pending in_progress completed failed skipped
    request_data  TEXT,
    error         TEXT,              -- why it failed or was skipped
    created_at    TEXT    NOT NULL,
    updated_at    TEXT    NOT NULL,
    position      INTEGER NOT NULL
);

CREATE INDEX pipeline_requests_pending ON pipeline_requests (ic_id)
WHERE status = 'pending';


-- section: members

-- Workers, actors and the controller: who takes part, and who was lost. No reset empties it.
CREATE TABLE members (
    name        TEXT    PRIMARY KEY,  -- worker-0 actor-1 controller
    status      TEXT    NOT NULL,     -- JOINED LEFT LOST
    joined      INTEGER,              -- position of the event by which it joined last
    known_by    TEXT,                 -- how it is known to be lost: lock person successor
    heard_at    INTEGER,              -- when it was heard of last, microseconds since 1970-01-01 UTC
    process     INTEGER,              -- the number that its process had
    created_at  TEXT    NOT NULL,
    updated_at  TEXT    NOT NULL,
    position    INTEGER NOT NULL
) WITHOUT ROWID;


-- section: retries

-- How often what a lost worker did is offered again; where nothing is said, not at all.
CREATE TABLE retries (
    scope         TEXT    PRIMARY KEY,  -- run-5 pipeline-4 experiment-1
    max_attempts  INTEGER NOT NULL,
    wait          REAL    NOT NULL,     -- seconds until the second attempt; then twice as long …
    created_at    TEXT    NOT NULL,
    updated_at    TEXT    NOT NULL,
    position      INTEGER NOT NULL
) WITHOUT ROWID;


-- section: ids

-- The last id given to each kind of entity. No reset empties it: ids are never used again.
CREATE TABLE ids (
    kind        TEXT    PRIMARY KEY,  -- experiment run task ic context pipeline pipeline_ic actor_task
    last        INTEGER NOT NULL,
    created_at  TEXT    NOT NULL,
    updated_at  TEXT    NOT NULL,
    position    INTEGER NOT NULL
) WITHOUT ROWID;


-- What RapidFire AI notes beyond that: rows beside those of the same key above.


-- section: rapidfire_experiments

CREATE TABLE rapidfire_experiments (
    experiment_id         INTEGER PRIMARY KEY,
    metric_experiment_id  TEXT,
    current_task          TEXT,
    options               TEXT,              -- names the payload
    created_at            TEXT    NOT NULL,
    updated_at            TEXT    NOT NULL,
    position              INTEGER NOT NULL
);


-- section: rapidfire_runs

CREATE TABLE rapidfire_runs (
    run_id               INTEGER PRIMARY KEY,
    flattened_config     TEXT    NOT NULL,  -- JSON
    completed_steps      INTEGER NOT NULL,
    total_steps          INTEGER NOT NULL,
    shards_visited       INTEGER NOT NULL,  -- in the current epoch
    epochs_completed     INTEGER NOT NULL,
    shard_offset         INTEGER NOT NULL,
    error                TEXT    NOT NULL,
    source               TEXT    NOT NULL,  -- in RapidFire's words
    ended_by             TEXT    NOT NULL,
    warm_started_from    INTEGER,
    cloned_from          INTEGER,
    estimated_runtime    REAL    NOT NULL,
    required_workers     INTEGER NOT NULL,
    controller_progress  REAL    NOT NULL,  -- percent
    worker_progress      REAL    NOT NULL,
    created_at           TEXT    NOT NULL,
    updated_at           TEXT    NOT NULL,
    position             INTEGER NOT NULL
);


-- section: rapidfire_tasks

CREATE TABLE rapidfire_tasks (
    task_id               INTEGER PRIMARY KEY,
    task_type             TEXT    NOT NULL,
    multi_worker_details  TEXT    NOT NULL,  -- JSON
    options               TEXT,              -- names the payload
    created_at            TEXT    NOT NULL,
    updated_at            TEXT    NOT NULL,
    position              INTEGER NOT NULL
);


-- section: rapidfire_workers

-- The task that each was given last, so that nobody has to look through all tasks for it.
CREATE TABLE rapidfire_workers (
    worker_id   INTEGER PRIMARY KEY,
    task_id     INTEGER NOT NULL,
    created_at  TEXT    NOT NULL,
    updated_at  TEXT    NOT NULL,
    position    INTEGER NOT NULL
);


-- section: rapidfire_contexts

CREATE TABLE rapidfire_contexts (
    context_id         INTEGER PRIMARY KEY,
    started_at         REAL,              -- seconds since 1970, where it was given so
    completed_at       REAL,
    enable_gpu         INTEGER NOT NULL,  -- 0 1
    vector_store_json  TEXT,
    created_at         TEXT    NOT NULL,
    updated_at         TEXT    NOT NULL,
    position           INTEGER NOT NULL
);


-- section: rapidfire_pipelines

CREATE TABLE rapidfire_pipelines (
    pipeline_id       INTEGER PRIMARY KEY,
    config            TEXT,              -- names the payload
    config_json       TEXT,
    flattened_config  TEXT    NOT NULL,  -- JSON
    metric_run_id     TEXT,
    created_at        TEXT    NOT NULL,
    updated_at        TEXT    NOT NULL,
    position          INTEGER NOT NULL
);

CREATE INDEX rapidfire_pipelines_by_metric_run ON rapidfire_pipelines (metric_run_id);


-- section: rapidfire_actor_tasks

CREATE TABLE rapidfire_actor_tasks (
    task_id       INTEGER PRIMARY KEY,
    started_at    REAL,              -- seconds since 1970, where it was given so
    completed_at  REAL,
    created_at    TEXT    NOT NULL,
    updated_at    TEXT    NOT NULL,
    position      INTEGER NOT NULL
);
