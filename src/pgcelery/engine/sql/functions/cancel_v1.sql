-- Cancel jobs, in the caller's transaction. What waits (ready, scheduled, for parents) ends now as
-- cancelled with the given result; for what runs, and for ids not known yet, the wish is kept until
-- a run ends or the id is claimed. Returns each id with its state, null when unknown.
create or replace function pgcelery.cancel_v1(
    ids text[], results bytea[], terminate boolean, signum smallint
) returns table (job_id text, state integer)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
    c record;
    job record;
    ended boolean;
    held smallint;
    freed record;
begin
    if exists (select from pgcelery.lines) then
        perform pgcelery.lock_lines_v1(pgcelery.gates_of_v1(ids));
    end if;
    for c in
        select distinct on (u.id) u.id, u.result from unnest(ids, results) as u(id, result)
        order by u.id
    loop
        select s.state into state
        from pgcelery.results s
        where s.id = c.id and s.finished_at is not null;
        if found then
            job_id := c.id;
            return next;
            continue;
        end if;

        -- First the wish, then the look: a claim that this look misses will see the wish.
        insert into pgcelery.cancels as x (job_id, terminate, signum)
        values (c.id, cancel_v1.terminate, cancel_v1.signum)
        on conflict (job_id) do update
        set terminate = x.terminate or excluded.terminate, signum = excluded.signum;

        select * into job from pgcelery.jobs j where j.id = c.id;
        ended := false;
        held := 0;
        if found then
            if job.due_at is not null then  -- first, as what is due moves from there
                delete from pgcelery.scheduled s
                where s.queue_id = job.queue_id and s.due_at = job.due_at and s.seq = job.seq;
                ended := found;
            end if;
            if not ended then
                delete from pgcelery.ready r
                where r.queue_id = job.queue_id and r.priority = job.priority and r.tag = 0
                  and r.seq = job.seq
                returning r.flags into held;
                ended := found;
            end if;
            if not ended and job.gates is not null then
                delete from pgcelery.ready r
                where r.queue_id in (-job.queue_id, 0) and r.priority = job.priority
                  and r.seq = job.seq
                returning r.flags into held;
                ended := found;
            end if;
            if ended and held & 2 = 2 then
                select * into freed from pgcelery.release_v2(array[c.id]);
                perform pgcelery.reopen_v1(freed.names, freed.keys);
            end if;
            if not ended and job.gates is not null then
                delete from pgcelery.gated w
                using unnest(job.gates) g
                where w.name = g.name and w.key = g.key and w.priority = job.priority
                  and w.seq = job.seq;
                ended := found;
            end if;
            if not ended and job.parents > 0 then
                delete from pgcelery.nodes n where n.job_id = c.id;
                ended := found;
            end if;
        end if;
        if ended then
            insert into pgcelery.results as s (id, state, result, finished_at, expires_at)
            values (c.id, 12, c.result, now(), now() + make_interval(secs => job.ttl_s))
            on conflict (id) do update
            set state = 12, result = excluded.result, finished_at = excluded.finished_at,
                expires_at = excluded.expires_at
            where s.finished_at is null;
            delete from pgcelery.cancels x where x.job_id = c.id;
            if job.flags & 1 = 1 then
                perform pgcelery.advance_v1(array[c.id], array[false]);
            end if;
        end if;
        job_id := c.id;
        state := case when ended then 12 when job.id is not null then 3 end;
        return next;
    end loop;
end
$$;
