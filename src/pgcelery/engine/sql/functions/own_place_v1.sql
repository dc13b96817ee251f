-- The place in a queue for what should, or must, run on one worker; made when it is first needed. In
-- another place of the queue, what that asks is asked too. Its text is not what engine/placement would
-- make of the same, so that no application shares it.
create function pgcelery.own_place_v1(of_queue integer, of_worker text, must boolean) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    base integer := of_queue;
    asked jsonb;
    found_id integer;
begin
    select p.queue_id, p.wants::jsonb into base, asked
    from pgcelery.places p where p.id = of_queue;
    base := coalesce(base, of_queue);
    asked := '{"p":[],"r":{}}'::jsonb || coalesce(asked, '{}');
    asked := case
        when must then asked || jsonb_build_object('r',
            asked -> 'r' || jsonb_build_object('worker', of_worker))
        else asked || jsonb_build_object('p',
            asked -> 'p' || jsonb_build_array(jsonb_build_array('worker', of_worker, 100)))
        end;
    select p.id into found_id
    from pgcelery.places p where p.queue_id = base and p.wants = asked::text;
    if not found then
        insert into pgcelery.places as p (queue_id, wants, own, plain)
        values (base, asked::text, of_worker, of_queue)
        on conflict (queue_id, wants) do update set own = excluded.own
        returning p.id into found_id;
    end if;
    return found_id;
end
$$;
