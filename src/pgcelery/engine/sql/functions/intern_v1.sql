-- Give names their queue ids, making the queues that are missing. Two statements: a row that another
-- transaction has just committed is seen by the second only.
create function pgcelery.intern_v1(names text[]) returns table (queue text, queue_id integer)
language plpgsql
set search_path = pg_catalog, pg_temp
set jit = off
as $$
begin
    insert into pgcelery.queues (name)
    select u.name from unnest(names) as u(name)
    where not exists (select from pgcelery.queues q where q.name = u.name)
    order by u.name
    on conflict (name) do nothing;
    return query select q.name, q.id from pgcelery.queues q where q.name = any (names);
end
$$;
