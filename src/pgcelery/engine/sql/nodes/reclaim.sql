-- After a reconnect: give back what was claimed in an answer that never came; queues that got work.
select unnest(pgcelery.reclaim_v3($1, $2))
