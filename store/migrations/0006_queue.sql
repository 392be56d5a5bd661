-- +goose Up

-- A queue is what a job has ready of one number of slots: tasks that are active
-- and that no node holds. head is the sequence of its oldest task, NULL if there
-- is none; pool and priority are the job's; open says that the job may start one
-- more. So one index tells what is next in a pool and what is next among the
-- tasks that fit into what is free, however many tasks and jobs wait, and a job
-- that changes its pool, priority, state or limit changes a row or two, not one
-- for each of its tasks.
CREATE TABLE queue (
    account  keytext NOT NULL,
    job      keytext NOT NULL,
    slots    bigint  NOT NULL,
    pool     keytext NOT NULL,
    priority bigint  NOT NULL,
    open     boolean NOT NULL,
    head     bigint,
    PRIMARY KEY (account, job, slots)
);
INSERT INTO queue (account, job, slots, pool, priority, open, head)
SELECT job.account, job.id, waiting.slots, job.pool, job.priority,
    job.state = 'active' AND (job.max_parallel < 0 OR job.bound < job.max_parallel), waiting.head
FROM (
    SELECT account, job, slots, min(seq) AS head
    FROM task
    WHERE state = 'active' AND NOT bound
    GROUP BY account, job, slots
) AS waiting
JOIN job ON job.account = waiting.account AND job.id = waiting.job;
CREATE INDEX queue_next ON queue (account, pool, slots, priority DESC, head) WHERE open AND head IS NOT NULL;

DROP INDEX job_ready;
DROP INDEX task_ready;
CREATE INDEX task_ready ON task (account, job, slots, seq) WHERE state = 'active' AND NOT bound;
