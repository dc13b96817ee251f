-- Let a latch go; the queues that got work.
create function pgcelery.close_latch_v1(latch text) returns integer[]
language sql
set search_path = pg_catalog, pg_temp
as $$
    select pgcelery.advance_v1(array['latch ' || latch], array[true]);
$$;
