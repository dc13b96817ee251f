-- Hand a job that was just made ready to a worker, in the caller's transaction, if one offers to run it
-- and nothing waits before it: it is claimed here, and the worker hears of it by the commit, with all that
-- it needs. One commit less before it begins, and no step. That is for a quiet queue: the commit of a
-- notification holds a lock of the whole server. Whether it was handed over.
--
-- Whether the worker is there its lock tells, which its connection holds. Where a look is slow twice (a
-- transaction holds an old snapshot, and what was taken is not cleaned away), this session looks no more
-- for a while: pgcelery_claims.offers. pgcelery_claims.handed is the job that was handed over last, for
-- the statement that wakes workers.
-- Promises P1, P7 of docs/guarantees.md.
create function pgcelery.hand_v1(id text, of_queue integer) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
    slow text := current_setting('pgcelery_claims.offers', true);  -- once, or until when
    looked_at timestamptz := clock_timestamp();
    offer record;
    first_id text;
    first_at tid;
    first_flags smallint;
    told text;
begin
    if slow <> '' and slow <> 'once' and slow::double precision > extract(epoch from looked_at) then
        return false;
    end if;
    select o.ctid as at, o.token, o.worker_id, o.channel into offer
    from pgcelery.offers o
    where o.queue_id = of_queue and o.until > now()
    order by o.token desc
    limit 1
    for update skip locked;
    if found then
        select r.job_id, r.ctid, r.flags into first_id, first_at, first_flags
        from pgcelery.ready r
        where r.queue_id = of_queue
        order by r.priority, r.tag, r.seq
        limit 1;
    end if;
    if clock_timestamp() - looked_at > interval '1 ms' then
        perform set_config('pgcelery_claims.offers', case when slow = 'once'
                then (extract(epoch from looked_at) + 5)::text else 'once' end, false);
    elsif slow <> '' then
        perform set_config('pgcelery_claims.offers', '', false);
    end if;
    if first_id is distinct from hand_v1.id or exists (select from pgcelery.paused)
       or exists (select from pgcelery.cancels c where c.job_id = hand_v1.id) then
        return false;
    end if;
    select json_build_array(offer.token, j.id, of_queue, j.name, encode(j.payload, 'base64'),
                            j.priority, first_flags)
    into told
    from pgcelery.jobs j
    where j.id = hand_v1.id and octet_length(j.payload) < 5000
      and (j.expires_at is null or j.expires_at > now());
    if told is null or octet_length(told) >= 7900 then
        return false;
    end if;
    delete from pgcelery.offers o where o.ctid = offer.at;
    -- The lock is had only if that connection has ended.
    if pg_try_advisory_xact_lock_shared(1885823845, hashtext(offer.channel)) then
        return false;
    end if;
    delete from pgcelery.ready r where r.ctid = first_at;
    if not found then
        return false;
    end if;
    insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)
    values (offer.token, hand_v1.id, offer.worker_id, of_queue, 1, first_flags);
    perform pg_notify(offer.channel, told), set_config('pgcelery_claims.handed', hand_v1.id, false);
    return true;
end
$$;
