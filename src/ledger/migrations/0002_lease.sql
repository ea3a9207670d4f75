-- The term of the lease taken last; 0 before the first. On SQLite the lock
-- beside the file is the lease itself.
alter table runs add column term integer not null default 0;
