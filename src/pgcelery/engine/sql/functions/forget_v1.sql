-- Delete what is kept of ended jobs, and results that belong to no job; how many. Of a job that goes on
-- (its result was written by hand) only the result.
create function pgcelery.forget_v1(ids text[]) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    many integer;
begin
    with gone as (
        delete from pgcelery.results s where s.id = any (ids) returning s.id, s.state, s.token
    ), jobs as (
        delete from pgcelery.jobs j using gone g
        where j.id = g.id and g.state >= 10
          -- Only what a run has ended, and not rescheduled, has surely ended.
          and (g.token <> coalesce(j.last_token, 0) or not pgcelery.at_large_v2(j))
    )
    select count(*)::integer into many from gone g;
    return many;
end
$$;
