-- Times are microseconds since 1970, UTC, but for leases, which the server's
-- own clock judges. States are stored under their names. Nothing here is a
-- member or says anything of one.

create table meta (
    id integer primary key check (id = 1),
    installation text not null,             -- owner written into open_runs
    body_key bytea not null                 -- key of the body hashes
);

create table run_specs (                    -- each specification once, however often it runs
    campaign_version text primary key,
    spec text not null
);

create table runs (
    seq bigint generated always as identity primary key,
    run_id text collate "C" not null unique,
    campaign text collate "C" not null,
    connector text not null,
    fire_time bigint not null,
    "trigger" text not null,
    manual_number bigint,                   -- n of `-manual-<n>`
    campaign_version text not null,
    state text not null,
    is_open boolean not null,               -- follows from state; kept for the indexes below
    claimed_at bigint not null,
    started_at bigint,
    finished_at bigint,
    funnel text,                            -- counts, JSON
    tally text,                             -- counts, JSON
    error text,
    term integer not null default 0,        -- of the lease taken last
    lease_host text,                        -- the process that has it
    lease_until timestamptz
);

create unique index runs_scheduled_once on runs (campaign, fire_time) where "trigger" = 'scheduled';
create index runs_of_campaign on runs (campaign, seq);
create index runs_open on runs (campaign, fire_time) where is_open;

create table batches (
    run_id text collate "C" not null,
    batch bigint not null,
    part text collate "C" not null,
    generation bigint not null,
    state text not null,
    status text,
    attempts bigint not null,
    members bigint not null,
    body_hash bytea not null,
    first_sending_at bigint not null,
    next_at bigint,
    ended_at bigint,
    was_ambiguous boolean not null default false,
    http_status integer,
    error text,
    settled boolean not null default false,
    primary key (run_id, batch, part)
);

create index batches_unsettled on batches (run_id, batch, part) where not settled and ended_at is not null;

create table cursors (
    campaign text collate "C" primary key,
    schedule_hash text not null,
    seen_until bigint not null
);
