-- The oldest outcome that is not in history is the first of its run here.

drop index batches_unsettled;
create index batches_unsettled on batches (run_id, ended_at) where not settled and ended_at is not null;
