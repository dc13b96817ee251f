-- Keep something under an id that is no job's, until it is forgotten or its time is over; whether it was.
create function pgcelery.keep_v1(given_id text, given bytea, ttl_s double precision) returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return not exists (select from pgcelery.jobs j where j.id = given_id)
           and pgcelery.put_result_v1(given_id, 3::smallint, given, ttl_s);
end
$$;
