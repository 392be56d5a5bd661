-- +goose Up

-- One row a lease; see lease.go. beat counts renewals, epoch counts holders.
CREATE TABLE leases (
    name   keytext NOT NULL PRIMARY KEY,
    holder keytext NOT NULL,
    epoch  bigint  NOT NULL,
    beat   bigint  NOT NULL
);

CREATE TABLE accounts (
    name     keytext NOT NULL PRIMARY KEY,
    location text    NOT NULL,
    key1     blob    NOT NULL,
    key2     blob    NOT NULL,
    body     jsontext NOT NULL,
    created  bigint  NOT NULL,
    modified bigint  NOT NULL
);
