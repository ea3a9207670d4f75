-- What came of each command, and who has paused what, since when.

alter table actions add column outcome text;            -- done, refused: why, failed: why; null: not known

alter table pauses add column who text;
alter table pauses add column since bigint;             -- microseconds since 1970, UTC
