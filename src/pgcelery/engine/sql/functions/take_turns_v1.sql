-- Claim up to `most` jobs of a queue both of whose lanes have some: by priority, and within one by
-- turns. Rows as of step_v3.
create function pgcelery.take_turns_v1(me integer, of_queue integer, most integer)
returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
               payload bytea, priority integer, delivery integer, flags integer, fed_by text)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
begin
    return query
    with fifo as (
        select r.ctid as at, r.priority, r.tag, r.seq
        from pgcelery.ready r
        where r.queue_id = of_queue
        order by r.priority, r.tag, r.seq
        limit most
        for update skip locked
    ), fair as (
        select r.ctid as at, r.priority, r.tag, r.seq
        from pgcelery.ready r
        where r.queue_id = -of_queue
        order by r.priority, r.tag, r.seq
        limit most
        for update skip locked
    ), picked as (
        select u.at
        from (select s.at, s.priority, random() < 0.5 as second,
                     row_number() over (partition by s.priority order by s.tag, s.seq) as turn
              from fifo s
              union all
              select f.at, f.priority, null,
                     row_number() over (partition by f.priority order by f.tag, f.seq)
              from fair f) u
        order by u.priority, u.turn, u.second is true
        limit most
    ), gone as (
        delete from pgcelery.ready r
        using picked p
        where r.ctid = p.at
        returning r.job_id, r.deliveries, r.flags
    ), claimed as (
        insert into pgcelery.running as c (token, job_id, worker_id, queue_id, delivery, flags)
        select nextval('pgcelery.tokens'), g.job_id, me, of_queue, g.deliveries + 1, g.flags
        from gone g
        returning c.token, c.job_id, c.delivery, c.flags
    )
    select 0, j.id, c.token, of_queue, j.name, j.payload, j.priority::integer, c.delivery::integer,
           c.flags
           | case when exists (select from pgcelery.cancels x where x.job_id = c.job_id)
                  then 8 else 0 end
           | case when j.expires_at <= now() then 16 else 0 end,
           null::text
    from claimed c
    join pgcelery.jobs j on j.id = c.job_id;
end
$$;
