-- The store of one coordinator. Times are milliseconds since 1970-01-01 UTC by the coordinator's clock.

-- Where the store stands: one row. A process whose epoch is not this one may not write.
CREATE TABLE standing (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    epoch      INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    newest     INTEGER NOT NULL,
    last_lease INTEGER NOT NULL,
    completed  INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    cancelled  INTEGER NOT NULL,
    timeout    INTEGER NOT NULL
) STRICT;
INSERT INTO standing VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0);

-- A job as it is now. Narrow, because it is written with each change; what never changes is kept beside it.
CREATE TABLE jobs (
    job_no          INTEGER PRIMARY KEY,   -- revision of its submission: what lists are sorted by
    job_id          TEXT    NOT NULL UNIQUE,
    namespace       TEXT    NOT NULL,
    operation       TEXT    NOT NULL,
    idempotency_key TEXT,
    created_at      INTEGER NOT NULL,
    state           INTEGER NOT NULL,      -- 1 to 9, as JobState on the wire; 6 and above are over
    worker_id       TEXT,                  -- holds it, or held it when it ended
    row             BLOB    NOT NULL,      -- the changeable part: store/codec.rs, Row
    error           BLOB                   -- encoded JobError of a job that did not complete
) STRICT;
-- What a start loads.
CREATE INDEX jobs_active ON jobs (job_no) WHERE state < 6;
-- What a repeated submission asks for.
CREATE INDEX jobs_by_key ON jobs (namespace, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- What never changes of a job.
CREATE TABLE documents (
    job_no   INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    spec     BLOB NOT NULL,                -- what the scheduler decides with: store/codec.rs, Spec
    document BLOB NOT NULL                 -- encoded JobDocument
) STRICT;

CREATE TABLE labels (
    name   TEXT    NOT NULL,
    value  TEXT    NOT NULL,
    job_no INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    PRIMARY KEY (name, value, job_no)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_by_job ON labels (job_no);

-- The log of every job, appended to in the order of revisions; old entries can be dropped from its low end.
CREATE TABLE history (
    revision  INTEGER PRIMARY KEY,
    job_no    INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    sequence  INTEGER NOT NULL,            -- per job, from 1, without gaps
    at        INTEGER NOT NULL,
    state     INTEGER NOT NULL,
    attempt   INTEGER NOT NULL,
    worker_id TEXT,
    reason    TEXT    NOT NULL,
    percent   REAL,                        -- set when the entry is progress
    progress  BLOB,                        -- encoded Progress: phase, message and details
    error     BLOB                         -- encoded JobError
) STRICT;
CREATE UNIQUE INDEX history_by_job ON history (job_no, sequence);

-- Outcome documents, as the workers made them: encoded JobResult.
CREATE TABLE results (
    job_no INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    result BLOB NOT NULL
) STRICT;

-- Drains in force.
CREATE TABLE drains (
    target BLOB PRIMARY KEY,               -- store/codec.rs, Target
    until  INTEGER
) STRICT, WITHOUT ROWID;
