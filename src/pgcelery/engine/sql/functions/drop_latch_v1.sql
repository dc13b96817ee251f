-- Take a latch away that nothing waits for; nothing else, whatever the id.
create function pgcelery.drop_latch_v1(latch text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    with held as (
        delete from pgcelery.edges e
        where e.parent = 'latch ' || latch and e.child = latch
        returning e.child
    )
    delete from pgcelery.nodes n using held h where n.job_id = h.child;
$$;
