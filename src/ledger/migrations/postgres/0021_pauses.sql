-- The emergency stop, and who used it.

create table pauses (
    scope text primary key                  -- all, campaign:<name>, destination:<name>
);

create table actions (
    at bigint not null,                     -- microseconds since 1970, UTC
    who text not null,                      -- the operating system's user
    verb text not null,
    target text not null
);
