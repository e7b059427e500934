-- Jobs that are over for long are forgotten, and deletions are told to watchers.

-- When a job ended; NULL while it is not over. What retention asks for.
ALTER TABLE jobs ADD COLUMN ended_at INTEGER;
-- The entry that ended a job is the last of its log.
UPDATE jobs SET ended_at = (SELECT max(at) FROM history h WHERE h.job_no = jobs.job_no) WHERE state >= 6;
CREATE INDEX jobs_by_end ON jobs (ended_at) WHERE ended_at IS NOT NULL;

-- Jobs that were deleted: what a watcher has to be told that followed them. Dropped from the low end.
CREATE TABLE deletions (
    deletion_no INTEGER PRIMARY KEY,       -- in the order of revisions, without gaps
    revision    INTEGER NOT NULL UNIQUE,
    at          INTEGER NOT NULL,
    job_no      INTEGER NOT NULL,
    job_id      TEXT    NOT NULL,
    -- What filters ask for, as it was at the end.
    namespace   TEXT    NOT NULL,
    operation   TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    state       INTEGER NOT NULL,
    worker_id   TEXT,
    labels      TEXT    NOT NULL           -- a JSON object
) STRICT;
-- Finds the low end by age.
CREATE INDEX deletions_by_time ON deletions (at);

-- Whoever has seen everything up to here can be told everything after it. What was deleted before there was a table of
-- deletions cannot be told.
ALTER TABLE standing ADD COLUMN compacted INTEGER NOT NULL DEFAULT 0;
UPDATE standing SET compacted = revision;
