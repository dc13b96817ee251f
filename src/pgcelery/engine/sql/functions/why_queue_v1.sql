-- What is to be known of a queue, or a place of it, from which a job may be claimed: whether it is
-- paused, which workers live, what is before the job (counts up to 1000; null when it is not ready).
-- Its own lane counts in full; of the other lane of the queue what is of higher priority, and for each
-- one before it of its own priority one. Part of why_v1, in its snapshot.
create function pgcelery.why_queue_v1(
    of_queue integer, of_lane integer, of_priority smallint, of_seq bigint
) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
    q record;
    own integer;
    alike integer;
    higher integer;
    turns integer;
begin
    select n.name, n.base_id, n.wants into q from pgcelery.queue_names n where n.id = of_queue;
    if of_lane is not null then
        -- Tags are unknown here, so the head of the lane is walked; beyond that it is "more than".
        select count(*) filter (where not h.from_here), count(*) filter (
                   where not h.from_here and h.priority = of_priority)
        into own, alike
        from (select w.priority,
                     bool_or(w.seq = of_seq and w.priority = of_priority) over (
                         order by w.priority, w.tag, w.seq
                         rows between unbounded preceding and current row) as from_here
              from (select r.priority, r.tag, r.seq from pgcelery.ready r
                    where r.queue_id = of_lane and r.priority <= of_priority
                    order by r.priority, r.tag, r.seq
                    limit 1000) w) h;
        select count(*)::integer into higher
        from (select from pgcelery.ready r
              where r.queue_id = -of_lane and r.priority < of_priority limit 1000) o;
        select count(*)::integer into turns
        from (select from pgcelery.ready r
              where r.queue_id = -of_lane and r.priority = of_priority limit 1000) o;
    end if;
    return jsonb_build_object(
        'name', q.name, 'wants', q.wants,
        'paused_at', (select p.at from pgcelery.paused p where p.queue_id = q.base_id),
        'ahead', least(own + higher + least(turns, alike), 1000),
        'last_claim', (select max(r.started_at) from pgcelery.running r where r.queue_id = of_queue),
        'workers', (
            select coalesce(jsonb_agg(jsonb_build_object(
                       'name', w.name, 'host', w.host, 'pid', w.pid, 'queues', w.queues,
                       'info', w.info,
                       'running', (select count(*) from pgcelery.running r where r.worker_id = w.id))
                       order by w.id), '[]')
            from pgcelery.workers w
            where w.lease_until > statement_timestamp()));
end
$$;
