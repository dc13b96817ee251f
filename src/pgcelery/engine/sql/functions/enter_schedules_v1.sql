-- Bring a book up to date and return how its schedules stand, in the order of the names. A new one
-- stands as given. One that had been taken out of the book is new again. Those that are missing
-- are retired and not deleted: processes that still have them must find what has been fired.
create function pgcelery.enter_schedules_v1(
    of_book text, names text[], last_runs timestamptz[], counts bigint[]
) returns table (name text, last_run_at timestamptz, total_run_count bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    -- All rows in one order, so that two processes cannot wait for each other.
    perform from pgcelery.schedules s where s.book = of_book order by s.name for no key update;

    insert into pgcelery.schedules as s (book, name, last_run_at, total_run_count)
    select of_book, g.name, g.last_run_at, g.total_run_count
    from unnest(names, last_runs, counts) as g(name, last_run_at, total_run_count)
    order by g.name
    on conflict (book, name) do update
    set last_run_at = greatest(s.last_run_at, excluded.last_run_at), retired_at = null
    where s.retired_at is not null;

    update pgcelery.schedules s
    set retired_at = now()
    where s.book = of_book and s.retired_at is null and s.name <> all (names);

    delete from pgcelery.schedules s where s.retired_at < now() - interval '30 days';

    return query
    select s.name, s.last_run_at, s.total_run_count
    from unnest(names) with ordinality as g(name, place)
    join pgcelery.schedules s on s.book = of_book and s.name = g.name
    order by g.place;
end
$$;
