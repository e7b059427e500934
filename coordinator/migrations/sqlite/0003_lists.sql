-- What lists ask for: each index gives its jobs in the order of lists, so that a page is read and nothing is walked through.
CREATE INDEX jobs_by_state ON jobs (state);
CREATE INDEX jobs_by_namespace ON jobs (namespace, state);
CREATE INDEX jobs_by_operation ON jobs (operation);
CREATE INDEX jobs_by_worker ON jobs (worker_id) WHERE worker_id IS NOT NULL;
-- What a start loads, it finds by state too.
DROP INDEX jobs_active;
