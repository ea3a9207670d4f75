-- What nearly every batch does, as it comes: its first attempt, and that it
-- was accepted. A row a group of writes instead of two a batch; the rows of
-- `batches` are made of it later, many at once.

create table journal (
    seq integer primary key,
    run_id text not null,
    begun text not null,        -- JSON: [[batch, generation, members, keyed hash, first sending at], …]
    accepted text not null      -- JSON: [[batch, HTTP status, ended at, excused], …]
) strict;

create view journal_begun as
select j.run_id as run_id, e.value ->> 0 as batch, e.value ->> 1 as generation,
    e.value ->> 2 as members, e.value ->> 3 as body_hash, e.value ->> 4 as first_sending_at
from journal j, json_each(j.begun) e;

create view journal_accepted as
select j.run_id as run_id, e.value ->> 0 as batch, e.value ->> 1 as http_status,
    e.value ->> 2 as ended_at, e.value ->> 3 as excused
from journal j, json_each(j.accepted) e;

-- `batches` as it will be: for who reads beside the process that writes.
create view batches_now as
select b.run_id, b.batch, b.part, b.generation,
    case when a.batch is null then b.state else 'accepted' end as state,
    case when a.batch is null then b.status else 'delivered' end as status,
    b.attempts, b.members, b.body_hash, b.first_sending_at, b.next_at,
    coalesce(a.ended_at, b.ended_at) as ended_at, b.was_ambiguous,
    coalesce(a.http_status, b.http_status) as http_status, b.error, b.settled,
    max(b.excused, coalesce(a.excused, 0)) as excused, b.first_place, b.last_place, b.rejected
from batches b left join journal_accepted a
    on a.run_id = b.run_id and a.batch = b.batch and b.part = '' and b.state = 'sending'
union all
select g.run_id, g.batch, '', g.generation,
    case when a.batch is null then 'sending' else 'accepted' end,
    case when a.batch is null then null else 'delivered' end,
    1, g.members, unhex(g.body_hash), g.first_sending_at, null, a.ended_at, 0, a.http_status, null, 0,
    coalesce(a.excused, 0), null, null, null
from journal_begun g left join journal_accepted a on a.run_id = g.run_id and a.batch = g.batch;
