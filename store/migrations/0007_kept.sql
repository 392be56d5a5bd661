-- +goose Up

-- Files of completed tasks whose retention has no limit have an end of their
-- own, so that whoever asks what a node keeps finds them.
UPDATE task
SET expires = 9223372036854775807
WHERE state = 'completed' AND node <> '' AND expires IS NULL AND retention = 9223372036854775807;
