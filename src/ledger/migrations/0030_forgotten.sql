-- Runs that are forgotten: their batches go bit by bit, after the run itself,
-- so that no run is ever seen with some of its batches.

create table forgotten (
    run_id text primary key
) strict;

create index runs_claimed on runs (claimed_at);
create index runs_of_version on runs (campaign_version);
