-- Count ended jobs down at their children and give those that are free a place: part of the
-- transaction that ends the parents. Returns the queues that got work.
create or replace function pgcelery.advance_v1(parent_ids text[], completed boolean[])
returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    f record;
begin
    select * into f from pgcelery.free_v1(parent_ids, completed);
    if f.freed is null then
        return '{}'::integer[];
    end if;
    return pgcelery.place_v2(f.freed, f.failed, null, '{}');
end
$$;
