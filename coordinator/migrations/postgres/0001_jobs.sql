-- The store of several coordinators, of which one leads. Times are milliseconds since 1970-01-01 UTC by the leader's clock,
-- but for `renewed_at`, which is the database's.
--
-- There is no foreign key: only the leader writes, a commit deletes all of a job itself, and checking each row that is
-- inserted would cost more than inserting it.

-- Where the store stands: one row. A process whose epoch is not this one may not write, nor one that lost this connection.
CREATE TABLE standing (
    id         SMALLINT    PRIMARY KEY CHECK (id = 1),
    epoch      BIGINT      NOT NULL,
    connection BIGINT      NOT NULL,           -- rises with each connection that the leader opens for writing
    revision   BIGINT      NOT NULL,
    newest     BIGINT      NOT NULL,
    last_lease BIGINT      NOT NULL,
    completed  BIGINT      NOT NULL,
    failed     BIGINT      NOT NULL,
    cancelled  BIGINT      NOT NULL,
    timeout    BIGINT      NOT NULL,
    compacted  BIGINT      NOT NULL,           -- whoever has seen everything up to here can be told everything after it
    leader     TEXT,                           -- who leads; nobody when null
    address    TEXT,                           -- where the leader serves
    renewed_at TIMESTAMPTZ NOT NULL            -- when the leader said last that it lives
);
INSERT INTO standing VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, '-infinity');

-- A job as it is now. Narrow, because it is written with each change; what never changes is kept beside it. Room on each
-- page, and no index on what changes but once, when the job is over: an update touches no index and leaves no bloat (HOT).
CREATE TABLE jobs (
    job_no          BIGINT   PRIMARY KEY,      -- revision of its submission: what lists are sorted by
    job_id          TEXT     NOT NULL UNIQUE,
    namespace       TEXT     NOT NULL,
    operation       TEXT     NOT NULL,
    idempotency_key TEXT,
    created_at      BIGINT   NOT NULL,
    state           SMALLINT NOT NULL,         -- 1 to 9, as JobState on the wire; 6 and above are over
    ended_at        BIGINT,                    -- null while it is not over
    worker_id       TEXT,                      -- holds it, or held it when it ended
    row             BYTEA    NOT NULL,         -- the changeable part: store/codec.rs, Row
    error           BYTEA                      -- encoded JobError of a job that did not complete
) WITH (fillfactor = 50);
-- What a start loads.
CREATE INDEX jobs_active ON jobs (job_no) WHERE ended_at IS NULL;
-- What retention asks for.
CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;
-- What a repeated submission asks for.
CREATE INDEX jobs_by_key ON jobs (namespace, idempotency_key) WHERE idempotency_key IS NOT NULL;

-- What never changes of a job.
CREATE TABLE documents (
    job_no   BIGINT PRIMARY KEY,
    spec     BYTEA  NOT NULL,                  -- what the scheduler decides with: store/codec.rs, Spec
    document BYTEA  NOT NULL                   -- encoded JobDocument
);

CREATE TABLE labels (
    name   TEXT   NOT NULL,
    value  TEXT   NOT NULL,
    job_no BIGINT NOT NULL,
    PRIMARY KEY (name, value, job_no)
);
CREATE INDEX labels_by_job ON labels (job_no);

-- The log of every job, appended to in the order of revisions and never updated. Its partitions are ranges of revisions, made
-- ahead by the leader; old entries are dropped with their partition.
CREATE TABLE history (
    revision  BIGINT   NOT NULL,
    job_no    BIGINT   NOT NULL,
    sequence  BIGINT   NOT NULL,               -- per job, from 1, without gaps
    at        BIGINT   NOT NULL,
    attempt   BIGINT   NOT NULL,
    state     SMALLINT NOT NULL,
    worker_id TEXT,
    reason    TEXT     NOT NULL,
    percent   DOUBLE PRECISION,                -- set when the entry is progress
    progress  BYTEA,                           -- encoded Progress: phase, message and details
    error     BYTEA,                           -- encoded JobError
    PRIMARY KEY (revision)
) PARTITION BY RANGE (revision);
CREATE INDEX history_by_job ON history (job_no, sequence);

-- Jobs that were deleted: what a watcher has to be told that followed them. Partitioned as the history is, and dropped with it.
CREATE TABLE deletions (
    revision   BIGINT   NOT NULL,
    at         BIGINT   NOT NULL,
    job_no     BIGINT   NOT NULL,
    job_id     TEXT     NOT NULL,
    -- What filters ask for, as it was at the end.
    namespace  TEXT     NOT NULL,
    operation  TEXT     NOT NULL,
    created_at BIGINT   NOT NULL,
    state      SMALLINT NOT NULL,
    worker_id  TEXT,
    labels     JSONB    NOT NULL,
    PRIMARY KEY (revision)
) PARTITION BY RANGE (revision);

-- Outcome documents, as the workers made them: encoded JobResult.
CREATE TABLE results (
    job_no BIGINT PRIMARY KEY,
    result BYTEA  NOT NULL
);

-- Drains in force.
CREATE TABLE drains (
    target BYTEA PRIMARY KEY,                  -- store/codec.rs, Target
    until  BIGINT
);
