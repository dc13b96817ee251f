-- The place in a queue, or in a place of it, for jobs of one name that workers' own rates keep waiting;
-- made when it is first needed. What it asks of a worker no worker has: releases that do not know of
-- these places leave them alone. `plain` is where its jobs came from.
create function pgcelery.throttled_place_v1(of_queue integer, of_name text) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    x record;
    asked jsonb;
    found_id integer;
begin
    select p.queue_id, p.wants::jsonb as wants, p.own, p.plain into x
    from pgcelery.places p where p.id = of_queue;
    if x.plain is not null and x.own is null then
        return of_queue;
    end if;
    asked := coalesce(x.wants, '{}');
    asked := asked || jsonb_build_object('r',
        coalesce(asked -> 'r', '{}') || jsonb_build_object('pgcelery:rate', '=' || of_name));
    loop
        select p.id into found_id
        from pgcelery.places p
        where p.queue_id = coalesce(x.queue_id, of_queue) and p.wants = asked::text;
        if found then
            return found_id;
        end if;
        insert into pgcelery.places (queue_id, wants, plain)
        values (coalesce(x.queue_id, of_queue), asked::text, of_queue)
        on conflict (queue_id, wants) do nothing;
    end loop;
end
$$;
