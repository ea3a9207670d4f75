-- Times are microseconds since 1970, UTC. States are stored under their names.
-- Nothing here is a member or says anything of one.

create table meta (
    id integer primary key check (id = 1),
    installation text not null,             -- owner written into open_runs
    body_key blob not null                  -- key of the body hashes
) strict;

create table run_specs (                    -- each specification once, however often it runs
    campaign_version text primary key,
    spec text not null
) strict, without rowid;

create table runs (
    seq integer primary key autoincrement,  -- order of writing: newest is highest
    run_id text not null unique,
    campaign text not null,
    connector text not null,
    fire_time integer not null,
    "trigger" text not null,
    manual_number integer,                  -- n of `-manual-<n>`
    campaign_version text not null,
    state text not null,
    is_open integer not null,               -- follows from state; kept for the indexes below
    claimed_at integer not null,
    started_at integer,
    finished_at integer,
    funnel text,                            -- counts, JSON
    tally text,                             -- counts, JSON
    error text
) strict;

create unique index runs_scheduled_once on runs (campaign, fire_time) where "trigger" = 'scheduled';
create index runs_of_campaign on runs (campaign, seq);
create index runs_open on runs (campaign, fire_time) where is_open = 1;

create table batches (
    run_id text not null,
    batch integer not null,
    part text not null,
    generation integer not null,
    state text not null,
    status text,
    attempts integer not null,
    members integer not null,
    body_hash blob not null,
    first_sending_at integer not null,
    next_at integer,
    ended_at integer,
    was_ambiguous integer not null default 0,
    http_status integer,
    error text,
    settled integer not null default 0,
    primary key (run_id, batch, part)
) strict, without rowid;

create index batches_unsettled on batches (run_id, batch, part) where settled = 0 and ended_at is not null;

create table cursors (
    campaign text primary key,
    schedule_hash text not null,
    seen_until integer not null
) strict, without rowid;
