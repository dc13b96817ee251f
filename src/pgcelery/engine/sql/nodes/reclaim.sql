-- After a reconnect: give back what was claimed in an answer that never came; queues that got work.
select unnest(pgcelery.reclaim_v1($1, $2))
