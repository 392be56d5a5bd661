-- +goose Up

-- Lists by state or by time go by the time of the last change of the state, of
-- which the time of creation is a lower bound. state comes first: behind account
-- and job, PostgreSQL would take this index for look-ups by id.
DROP INDEX task_state;
CREATE INDEX task_changes ON task (state, account, job, changed, id);
