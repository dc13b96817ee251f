-- The priority of a lane whose first job has waited longest, if that is longer than patience_s and it
-- is not the priority that is served anyway; else null.
create function pgcelery.neglected_v1(lane integer, patience_s double precision) returns smallint
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
    level smallint;
    served smallint;
    found_level smallint;
    since timestamptz;
    longest timestamptz := clock_timestamp() - make_interval(secs => patience_s);
begin
    loop
        select r.priority, greatest(j.created_at, j.due_at) into level, since
        from (select i.priority, i.job_id from pgcelery.ready i
              where i.queue_id = lane and i.priority > coalesce(level, -1)
              order by i.priority, i.tag, i.seq limit 1) r
        join pgcelery.jobs j on j.id = r.job_id;
        exit when not found;
        if served is null then
            served := level;
        elsif since < longest then
            found_level := level;
            longest := since;
        end if;
    end loop;
    return found_level;
end
$$;
