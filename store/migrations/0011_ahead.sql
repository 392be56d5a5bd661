-- +goose Up

-- What a node is given ahead of time follows from its pace and from what a round
-- of report and orders takes it: thousandths of a slot.
ALTER TABLE node RENAME COLUMN pace TO ahead;
ALTER TABLE node RENAME COLUMN pace_changed TO ahead_changed;
