-- Insert one job that may run now, in the caller's transaction: what enqueue_v4 does for a job without
-- parents, times to wait for, rules, a workflow, or a wish to run again; the call that applications make
-- all day. Its flags have none of the bits 2, 64 and 128. 1 if the id existed, and was left alone (a
-- parked one is taken over); else 0, or 2 if the job was handed to a worker.
--
-- A job is handed over where a worker offers to run it and nothing waits before it: it is claimed here,
-- and the worker hears of it by the commit, with all that it needs. One commit less before it begins, and
-- no step. That is for a quiet queue: the commit of a notification holds a lock of the whole server.
-- Whether the worker is there its lock tells, which its connection holds. Where a look for offers is slow
-- twice (a transaction holds an old snapshot, and those that were taken are not cleaned away), this
-- session looks for none for a while: pgcelery_claims.offers. pgcelery_claims.handed tells the statement
-- that would wake workers.
-- Promises P1, P2, P7 of docs/guarantees.md.
create function pgcelery.enqueue_one_v2(
    id text, queue_id integer, priority smallint, name text, payload bytea, expires_at timestamptz,
    max_deliveries smallint, ttl_s double precision, flags smallint
) returns smallint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    place bigint;
    offer record;
    slow text := current_setting('pgcelery_claims.offers', true);  -- once, or until when
    looked_at timestamptz;
    told text;
begin
    if current_setting('pgcelery_claims.handed', true) = 'on' then
        perform set_config('pgcelery_claims.handed', 'off', false);
    end if;
    insert into pgcelery.jobs as j (id, queue_id, priority, name, payload, expires_at, max_deliveries,
                                    ttl_s, parents, flags)
    values ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)
    on conflict do nothing
    returning j.seq into place;
    if place is null then
        return (
            select cardinality(e.existing) > 0
            from pgcelery.enqueue_v4(
                array[$1], array[$2], array[$3], array[$4], array[$5], array[null::timestamptz],
                array[null::double precision], array[$6], array[$7], array[$8], array[0], array[$9],
                array[null::text], array[null::text], array[null::double precision], '{}', '{}') e
            )::integer;
    end if;

    if slow is null or slow in ('', 'once') or slow::double precision < extract(epoch from now()) then
        looked_at := clock_timestamp();
        select o.ctid as at, o.token, o.worker_id, o.channel into offer
        from pgcelery.offers o
        where o.queue_id = $2 and o.until > now()
        order by o.token desc
        limit 1
        for update skip locked;
        if found and octet_length($5) < 5000 and ($6 is null or $6 > now())
           and not exists (select from pgcelery.ready r where r.queue_id = $2)
           and not exists (select from pgcelery.paused)
           and not exists (select from pgcelery.cancels c where c.job_id = $1)
        then
            told := json_build_array(offer.token, $1, $2, $4, encode($5, 'base64'), $3, $9 & 1);
        end if;
        if clock_timestamp() - looked_at > interval '1 ms' then
            perform set_config('pgcelery_claims.offers', case when slow = 'once'
                    then (extract(epoch from now()) + 5)::text else 'once' end, false);
        elsif slow <> '' then
            perform set_config('pgcelery_claims.offers', '', false);
        end if;
        if octet_length(told) < 7900 then
            delete from pgcelery.offers o where o.ctid = offer.at;
            -- The lock is had only if that connection has ended.
            if not pg_try_advisory_xact_lock_shared(1885823845, hashtext(offer.channel)) then
                insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)
                values (offer.token, $1, offer.worker_id, $2, 1, $9 & 1);
                perform pg_notify(offer.channel, told), set_config('pgcelery_claims.handed', 'on', false);
                return 2;
            end if;
        end if;
    end if;
    insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
    values ($2, $3, place, $1, 0, $9 & 1);
    return 0;
end
$$;
