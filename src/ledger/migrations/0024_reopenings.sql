-- Runs that a person has opened again: what for, JSON, until it is done.

create table reopenings (
    run_id text primary key,
    reopening text not null
) strict;

-- Time that a batch has rested for us and not for its destination.
alter table batches add column excused integer not null default 0;  -- microseconds
