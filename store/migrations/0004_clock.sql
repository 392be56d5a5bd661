-- +goose Up

-- What the service knows of time, one row once it has committed anything; see
-- clock.go. date is how far the dates of transactions may have come, steady the
-- clock that nobody sets, which began with the date of the first row. wall, boot
-- and up are what the machine's clocks said then; up is in microseconds.
--
-- The columns that say when something is due go by steady: job.expires,
-- task.expires, storage_blocks.created_at, and within body the end of a pool's
-- resize and of a node's wait.
CREATE TABLE clock (
    name   keytext NOT NULL PRIMARY KEY,
    date   bigint  NOT NULL,
    steady bigint  NOT NULL,
    wall   bigint  NOT NULL,
    boot   text    NOT NULL,
    up     bigint  NOT NULL
);
