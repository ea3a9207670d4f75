-- What a cursor was looking at: the schedule itself, for what it leaves behind
-- when it is edited, and whether its campaign was disabled.

alter table cursors add column schedule text;           -- none of an earlier version's
alter table cursors add column is_disabled boolean not null default false;
