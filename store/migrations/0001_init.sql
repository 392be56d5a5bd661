-- +goose Up

-- Conventions: a column id holds the key of an ID, which is the ID in lower
-- case; the ID as its user wrote it is in body or in name, which is empty where
-- it would say the same. Times are microseconds since 1970 UTC, NULL for none.
-- stamp is the number that an ETag is made of; changed is when the state
-- changed last. body holds what no statement looks at.

-- Who may run a loop; see lease.go. beat counts renewals, epoch counts holders.
CREATE TABLE lease (
    name   keytext NOT NULL PRIMARY KEY,
    holder keytext NOT NULL,
    epoch  bigint  NOT NULL,
    beat   bigint  NOT NULL
);

CREATE TABLE account (
    name    keytext NOT NULL PRIMARY KEY,
    key1    blob    NOT NULL,
    key2    blob    NOT NULL,
    created bigint  NOT NULL
);

CREATE TABLE pool (
    account            keytext  NOT NULL,
    id                 keytext  NOT NULL,
    display_name       keytext  NOT NULL,
    vm_size            keytext  NOT NULL,
    state              keytext  NOT NULL CHECK (state IN ('active', 'deleting')),
    changed            bigint   NOT NULL,
    allocation_state   keytext  NOT NULL CHECK (allocation_state IN ('steady', 'resizing', 'stopping')),
    allocation_changed bigint   NOT NULL,
    created            bigint   NOT NULL,
    stamp              bigint   NOT NULL,
    slots              bigint   NOT NULL, -- of each node
    target_dedicated   bigint   NOT NULL,
    target_low         bigint   NOT NULL,
    dedicated          bigint   NOT NULL, -- nodes that exist
    low                bigint   NOT NULL,
    body               jsontext NOT NULL,
    PRIMARY KEY (account, id)
);
CREATE INDEX pool_moving ON pool (account, id) WHERE allocation_state <> 'steady' OR state = 'deleting';

-- bound_* counts tasks that the node holds, running_* those that have begun.
-- free is slots - bound_slots, below zero when tasks wait on the node for a
-- slot; takes says that the scheduler may give it tasks.
CREATE TABLE node (
    id             keytext  NOT NULL PRIMARY KEY,
    account        keytext  NOT NULL,
    pool           keytext  NOT NULL,
    pool_name      text     NOT NULL,
    dedicated      boolean  NOT NULL,
    state          keytext  NOT NULL CHECK (state IN ('creating', 'starting', 'waitingforstarttask',
        'starttaskfailed', 'idle', 'running', 'rebooting', 'reimaging', 'leavingpool', 'offline',
        'unknown', 'unusable', 'preempted')),
    scheduling     keytext  NOT NULL CHECK (scheduling IN ('enabled', 'disabled')),
    changed        bigint   NOT NULL,
    allocated      bigint,
    booted         bigint,
    ip             keytext  NOT NULL,
    vm_size        keytext  NOT NULL,
    takes          boolean  NOT NULL,
    slots          bigint   NOT NULL,
    free           bigint   NOT NULL,
    bound_tasks    bigint   NOT NULL,
    bound_slots    bigint   NOT NULL,
    running_tasks  bigint   NOT NULL,
    running_slots  bigint   NOT NULL,
    total_run      bigint   NOT NULL,
    total_ok       bigint   NOT NULL,
    pace           bigint   NOT NULL, -- tasks in a thousand seconds
    pace_at        bigint,
    revision       bigint   NOT NULL,
    settings       bigint   NOT NULL,
    boot           bigint   NOT NULL,
    image          bigint   NOT NULL,
    boot_done      bigint   NOT NULL,
    pending_reboot keytext  NOT NULL,
    leaving        keytext  NOT NULL,
    token_hash     blob,
    instance       keytext  NOT NULL,
    recent         jsontext NOT NULL, -- the last tasks, by ID only
    start_task     jsontext NOT NULL,
    body           jsontext NOT NULL
);
CREATE INDEX node_pool ON node (account, pool, id);
CREATE INDEX node_free ON node (account, pool, free, id) WHERE takes;

-- The counts are kept by whoever changes a task. active includes bound tasks
-- that have not begun; active + running - bound tasks are ready to be bound.
CREATE TABLE job (
    account         keytext  NOT NULL,
    id              keytext  NOT NULL,
    name            text     NOT NULL,
    display_name    keytext  NOT NULL,
    pool            keytext  NOT NULL,
    pool_name       text     NOT NULL,
    state           keytext  NOT NULL CHECK (state IN ('active', 'disabling', 'disabled', 'enabling',
        'terminating', 'completed', 'deleting')),
    changed         bigint   NOT NULL,
    prev_state      keytext  NOT NULL,
    prev_changed    bigint,
    created         bigint   NOT NULL,
    stamp           bigint   NOT NULL,
    priority        bigint   NOT NULL,
    max_parallel    bigint   NOT NULL, -- -1 for no limit
    on_all          keytext  NOT NULL,
    on_failure      keytext  NOT NULL,
    started         bigint,
    ended           bigint,
    expires         bigint,
    active          bigint   NOT NULL,
    running         bigint   NOT NULL,
    succeeded       bigint   NOT NULL,
    failed          bigint   NOT NULL,
    active_slots    bigint   NOT NULL,
    running_slots   bigint   NOT NULL,
    succeeded_slots bigint   NOT NULL,
    failed_slots    bigint   NOT NULL,
    bound           bigint   NOT NULL,
    body            jsontext NOT NULL,
    PRIMARY KEY (account, id)
);
CREATE INDEX job_ready ON job (account, pool) WHERE state = 'active' AND bound < active + running;
CREATE INDEX job_expires ON job (expires) WHERE expires IS NOT NULL AND state IN ('active', 'disabling', 'disabled', 'enabling');
CREATE INDEX job_ending ON job (account, id) WHERE state IN ('disabling', 'terminating', 'deleting');

-- body is the specification alone; the columns before it are copies of what the
-- scheduler and the nodes' reports need of it. node is where the task runs or
-- ran. expires is when its files may go: NULL if nothing is to be removed, 0 if
-- they have been.
CREATE TABLE task (
    account       keytext  NOT NULL,
    job           keytext  NOT NULL,
    id            keytext  NOT NULL,
    name          text     NOT NULL,
    display_name  keytext  NOT NULL,
    seq           bigint   NOT NULL,
    slots         bigint   NOT NULL,
    affinity      keytext  NOT NULL,
    max_retries   bigint   NOT NULL,
    retention     bigint   NOT NULL, -- in ticks of 100 ns
    stamp         bigint   NOT NULL,
    created       bigint   NOT NULL,
    state         keytext  NOT NULL CHECK (state IN ('active', 'preparing', 'running', 'completed')),
    changed       bigint   NOT NULL,
    prev_state    keytext  NOT NULL,
    prev_changed  bigint,
    pool_name     text     NOT NULL,
    node          keytext  NOT NULL,
    bound         boolean  NOT NULL,
    attempt       bigint   NOT NULL,
    release       keytext  NOT NULL,
    start_at      bigint,
    end_at        bigint,
    exit_code     bigint,
    failure       jsontext,
    retry_count   bigint   NOT NULL,
    retried_at    bigint,
    requeue_count bigint   NOT NULL,
    requeued_at   bigint,
    result        keytext  NOT NULL CHECK (result IN ('', 'success', 'failure')),
    expires       bigint,
    body          jsontext NOT NULL,
    PRIMARY KEY (account, job, id)
);
CREATE INDEX task_ready ON task (account, job, seq) WHERE state = 'active' AND NOT bound;
CREATE INDEX task_bound ON task (node) WHERE bound;
-- state comes first: behind account and job, PostgreSQL would take this index for
-- look-ups by id.
CREATE INDEX task_state ON task (state, account, job, id);
CREATE INDEX task_expires ON task (expires) WHERE expires > 0;

-- Directories that a node is asked to remove; task is empty for a whole job.
CREATE TABLE removal (
    node keytext NOT NULL,
    id   bigint  NOT NULL,
    job  keytext NOT NULL,
    task keytext NOT NULL,
    PRIMARY KEY (node, id),
    UNIQUE (node, job, task)
);
