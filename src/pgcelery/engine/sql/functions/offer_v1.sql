-- Offer to run `many` more jobs of each of these queues, and renew what the worker has offered of them;
-- the tokens of all those, and their queues. Nothing new while a queue is paused, or when the worker is
-- unknown; none outlasts its lease. Offers that are past their time go. It waits for nobody who is taking
-- one, nor for the disk: a token that is not used is lost for nothing, and the commit that uses it comes
-- after this one.
-- Promise P17 of docs/guarantees.md.
create function pgcelery.offer_v1(
    me integer, channel text, queue_ids integer[], many integer, for_s double precision
) returns table (token bigint, queue_id integer)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
    ends_at timestamptz;
begin
    perform set_config('synchronous_commit', 'off', true);
    select least(w.lease_until, now() + make_interval(secs => for_s)) into ends_at
    from pgcelery.workers w where w.id = offer_v1.me;
    return query
    update pgcelery.offers o set until = coalesce(ends_at, now())
    where o.ctid = any (array(
        select m.ctid from pgcelery.offers m
        where m.queue_id = any (offer_v1.queue_ids) and m.worker_id = offer_v1.me
        for update skip locked))
    returning o.token, o.queue_id;
    delete from pgcelery.offers o
    where o.ctid = any (array(
        select m.ctid from pgcelery.offers m
        where m.queue_id = any (offer_v1.queue_ids) and m.until < now()
        for update skip locked));
    if ends_at is null or exists (select from pgcelery.paused) then
        return;
    end if;
    return query
    insert into pgcelery.offers (queue_id, token, worker_id, channel, until)
    select u.id, nextval('pgcelery.tokens'), offer_v1.me, offer_v1.channel, ends_at
    from unnest(offer_v1.queue_ids) as u(id), generate_series(1, offer_v1.many)
    returning token, queue_id;
end
$$;
