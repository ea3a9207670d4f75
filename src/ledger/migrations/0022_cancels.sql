-- Runs that a person has cancelled; the run's own state says how far it is.

create table cancels (
    run_id text primary key
) strict;
