-- Claim up to `most` jobs of one lane of a queue for a worker, from a priority on. Rows as of step_v3.
create function pgcelery.take_v1(
    me integer, of_queue integer, lane integer, from_priority smallint, most integer
) returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
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
    with picked as (
        select r.ctid as at
        from pgcelery.ready r
        where r.queue_id = lane and r.priority >= from_priority
        order by r.priority, r.tag, r.seq
        limit most
        for update skip locked
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
    select 0, j.id, c.token, case when of_queue = 0 then j.queue_id else of_queue end, j.name, j.payload, j.priority::integer, c.delivery::integer,
           c.flags
           | case when exists (select from pgcelery.cancels x where x.job_id = c.job_id)
                  then 8 else 0 end
           | case when j.expires_at <= now() then 16 else 0 end,
           null::text
    from claimed c
    join pgcelery.jobs j on j.id = c.job_id;
end
$$;
