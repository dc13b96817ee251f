-- Claim the first job of a queue's plain lane for a worker, in the caller's transaction: what take_v1
-- does for one, by statements about single rows, for less than half. `run` is the token, a new one if it
-- is null; all is null if there is nothing. Flags as of step_v4.
create function pgcelery.take_one_v1(
    me integer, of_queue integer, run bigint,
    out job_id text, out token bigint, out name text, out payload bytea, out priority integer,
    out delivery integer, out flags integer
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    first record;
begin
    select r.ctid as at, r.job_id, r.deliveries, r.flags into first
    from pgcelery.ready r
    where r.queue_id = of_queue
    order by r.priority, r.tag, r.seq
    limit 1
    for update skip locked;
    if not found then
        return;
    end if;
    delete from pgcelery.ready r where r.ctid = first.at;
    token := coalesce(run, nextval('pgcelery.tokens'));
    delivery := first.deliveries + 1;
    insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)
    values (take_one_v1.token, first.job_id, me, of_queue, take_one_v1.delivery, first.flags);
    select j.id, j.name, j.payload, j.priority,
           first.flags
           | case when exists (select from pgcelery.cancels x where x.job_id = first.job_id)
                  then 8 else 0 end
           | case when j.expires_at <= now() then 16 else 0 end
    into job_id, name, payload, priority, flags
    from pgcelery.jobs j where j.id = first.job_id;
end
$$;
