-- What a forecast needs of a run: how long it worked before it sent anything,
-- without what it waited for its turns at the warehouse and for fresh data.

alter table runs add column asked integer; -- microseconds; null before that
