-- +goose Up

-- Accounts of the storage endpoint, each with the two keys its clients sign with.
CREATE TABLE storage_accounts (
    name       keytext NOT NULL PRIMARY KEY,
    key1       blob    NOT NULL,
    key2       blob    NOT NULL,
    created_at bigint  NOT NULL
);

-- id names one life of a container: blobs refer to it and not to the name, so
-- that deleting a container is one row and a new one of that name is empty.
CREATE TABLE storage_containers (
    account     keytext  NOT NULL,
    name        keytext  NOT NULL,
    id          keytext  NOT NULL UNIQUE,
    etag        text     NOT NULL,
    modified_at bigint   NOT NULL,
    metadata    jsontext NOT NULL,
    PRIMARY KEY (account, name)
);

-- Lives of containers that are over and whose blobs wait to be removed.
CREATE TABLE storage_dropped (
    container  keytext NOT NULL PRIMARY KEY,
    dropped_at bigint  NOT NULL
);

-- A committed blob. Its bytes are in data when they are few, else in the file
-- named by content, or, when blocks is not zero, in the parts under content.
CREATE TABLE storage_blobs (
    container   keytext  NOT NULL,
    name        keytext  NOT NULL,
    etag        text     NOT NULL,
    size        bigint   NOT NULL,
    created_at  bigint   NOT NULL,
    modified_at bigint   NOT NULL,
    properties  jsontext NOT NULL,
    content     keytext  NOT NULL,
    blocks      bigint   NOT NULL,
    data        blob,
    PRIMARY KEY (container, name)
);
CREATE INDEX storage_blobs_content ON storage_blobs (content) WHERE content <> '';

-- The committed blocks of a blob in their order; start is the offset of the
-- block within the blob.
CREATE TABLE storage_parts (
    content keytext NOT NULL,
    seq     bigint  NOT NULL,
    block   text    NOT NULL,
    start   bigint  NOT NULL,
    size    bigint  NOT NULL,
    file    keytext NOT NULL,
    PRIMARY KEY (content, seq)
);
CREATE INDEX storage_parts_file ON storage_parts (file);

-- Blocks that were uploaded and are in no block list yet.
CREATE TABLE storage_blocks (
    container  keytext NOT NULL,
    blob       keytext NOT NULL,
    block      keytext NOT NULL,
    size       bigint  NOT NULL,
    file       keytext NOT NULL,
    created_at bigint  NOT NULL,
    PRIMARY KEY (container, blob, block)
);
CREATE INDEX storage_blocks_file ON storage_blocks (file);
