-- Jobs that others wait for though these were enqueued before them. A latch is a node without a job,
-- which a producer opens and later closes: what waits for it goes on when it is closed and all that
-- joined it have ended. And a running job may have others join beside it; see join_v1.

alter table pgcelery.nodes add column joined text[];  -- beside a parent, in order; a latch has at least {}
alter table pgcelery.jobs add column joined text[];   -- the same, once it waits no more

-- install functions/join_v1.sql
-- install functions/enqueue_v1.sql
-- install functions/advance_v1.sql
