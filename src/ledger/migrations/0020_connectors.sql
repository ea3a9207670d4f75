-- What is known of a connector beside its runs.

create table connectors (
    connector text primary key,
    alarm text,                             -- why nothing is sent on it
    accepted_seq integer not null default 0 -- runs up to here may be missing in its warehouse
) strict, without rowid;

create index runs_of_connector on runs (connector, seq);
