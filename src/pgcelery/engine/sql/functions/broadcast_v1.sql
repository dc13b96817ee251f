-- Put a message into the inbox of every live worker, or of those named. Returns how many.
create function pgcelery.broadcast_v1(
    message bytea, destination text[], answer_to text, ttl_s double precision
) returns integer
language sql
set search_path = pg_catalog, pg_temp
as $$
    with sent as (
        insert into pgcelery.inbox (worker_id, body, reply_to, expires_at)
        select w.id, message, answer_to, now() + make_interval(secs => ttl_s)
        from pgcelery.workers w
        where w.lease_until > now() and (destination is null or w.name = any (destination))
        returning 1
    )
    select count(*)::integer from sent;
$$;
