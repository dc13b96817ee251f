-- A worker's own rates: what may not start yet waits in places of the queues, from which workers draw as
-- much as their rates allow. A throttled place has a `plain` and no `own`.

-- install functions/throttled_place_v1.sql
-- install functions/withhold_v1.sql
-- install functions/draw_v1.sql
-- install functions/relay_v2.sql
