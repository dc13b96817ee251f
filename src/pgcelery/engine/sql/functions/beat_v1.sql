-- What workers of before gates call; see beat_v2.
create or replace function pgcelery.beat_v1(me integer, lease_s double precision)
returns table (kind integer, job_id text, token bigint, name text, payload bytea,
               priority integer, flags integer)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    return query select * from pgcelery.beat_v2(me, lease_s) b where b.kind in (3, 6, 9);
end
$$;
