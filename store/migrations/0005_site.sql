-- +goose Up

-- Which data folder belongs to this database: one row, which the folder has a
-- copy of. use says what for: a server's data, or those of a development server,
-- whose keys everybody knows.
CREATE TABLE site (
    id      keytext NOT NULL PRIMARY KEY,
    use     keytext NOT NULL,
    created bigint  NOT NULL
);
