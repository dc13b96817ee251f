-- Virtual time of a queue's fair lane: the tag of its first job of a priority, or, if none is ready,
-- of the last one that was let through.
create function pgcelery.lane_tag_v1(of_queue integer, of_priority smallint) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(
        (select r.tag from pgcelery.ready r
         where r.queue_id = -of_queue and r.priority = of_priority
         order by r.tag limit 1),
        (select a.tag from pgcelery.lanes a where a.queue_id = of_queue), 0);
$$;
