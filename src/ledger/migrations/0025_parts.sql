-- Parts of batches, and members refused one by one: by their places in the
-- run's own table, never by their keys.

alter table batches add column first_place integer;     -- where it is not a whole batch
alter table batches add column last_place integer;
alter table batches add column rejected text;           -- places, JSON
