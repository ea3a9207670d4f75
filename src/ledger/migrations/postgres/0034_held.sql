-- A fire time looks for the held run that it finds, among all that have ended.

create index runs_held on runs (campaign, fire_time) where state = 'held';
