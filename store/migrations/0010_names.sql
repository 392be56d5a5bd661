-- +goose Up

-- One naming for everything: a table is named for one of its rows; a time is
-- named for what happened then, without a suffix; an index has the name of its
-- table and then what it is for.
ALTER TABLE node RENAME COLUMN pace_at TO pace_changed;
ALTER TABLE task RENAME COLUMN start_at TO started;
ALTER TABLE task RENAME COLUMN end_at TO ended;
ALTER TABLE task RENAME COLUMN retried_at TO retried;
ALTER TABLE task RENAME COLUMN requeued_at TO requeued;

ALTER TABLE storage_accounts RENAME TO storage_account;
ALTER TABLE storage_account RENAME COLUMN created_at TO created;

ALTER TABLE storage_containers RENAME TO storage_container;
ALTER TABLE storage_container RENAME COLUMN modified_at TO modified;

ALTER TABLE storage_dropped RENAME COLUMN dropped_at TO dropped;

ALTER TABLE storage_blobs RENAME TO storage_blob;
ALTER TABLE storage_blob RENAME COLUMN created_at TO created;
ALTER TABLE storage_blob RENAME COLUMN modified_at TO modified;
DROP INDEX storage_blobs_content;
CREATE INDEX storage_blob_content ON storage_blob (content) WHERE content <> '';

ALTER TABLE storage_parts RENAME TO storage_part;
DROP INDEX storage_parts_file;
CREATE INDEX storage_part_file ON storage_part (file);

ALTER TABLE storage_blocks RENAME TO storage_block;
ALTER TABLE storage_block RENAME COLUMN created_at TO created;
DROP INDEX storage_blocks_file;
CREATE INDEX storage_block_file ON storage_block (file);
