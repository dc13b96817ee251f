-- After a reconnect, or before a worker leaves: take back what it has offered, then give back what was
-- claimed for it in an answer that never came. The first waits for those who are taking an offer, so that
-- the second finds what they were handing over. Queues that got work.
-- Promise P10 of docs/guarantees.md.
create function pgcelery.reclaim_v3(me integer, known bigint[]) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    delete from pgcelery.offers o where o.worker_id = me;
    return pgcelery.reclaim_v2(me, known);
end
$$;
