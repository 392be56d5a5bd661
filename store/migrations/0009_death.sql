-- +goose Up

-- Attempts under which the agent of their node died. A task under which many do
-- is set aside. crashed: by itself, not because somebody or a machine ended it.
CREATE TABLE death (
    account keytext NOT NULL,
    job     keytext NOT NULL,
    task    keytext NOT NULL,
    attempt bigint  NOT NULL,
    node    keytext NOT NULL,
    crashed boolean NOT NULL,
    PRIMARY KEY (account, job, task, attempt)
);
