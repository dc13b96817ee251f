-- Give a queue a place for what its jobs ask of a worker, if it has none yet; its id.
create function pgcelery.intern_place_v1(of_queue integer, wanted text) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
    insert into pgcelery.places (queue_id, wants)
    select of_queue, wanted
    where not exists (select from pgcelery.places p
                      where p.queue_id = of_queue and p.wants = wanted)
    on conflict (queue_id, wants) do nothing;
    return (select p.id from pgcelery.places p where p.queue_id = of_queue and p.wants = wanted);
end
$$;
