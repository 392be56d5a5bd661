-- +goose Up

-- How a task was specified, apart from what each change of its state writes and
-- what a list looks through. It is read when a node is told what to run and when
-- somebody asks for the whole task. The mark makes the key of the table its only
-- index where a database can do that, see migrate.go.
CREATE TABLE specification (
    account keytext  NOT NULL,
    job     keytext  NOT NULL,
    id      keytext  NOT NULL,
    body    jsontext NOT NULL,
    PRIMARY KEY (account, job, id)
) /* clustered */;
INSERT INTO specification (account, job, id, body)
SELECT account, job, id, body
FROM task
ORDER BY account, job, id;
ALTER TABLE task DROP COLUMN body;
