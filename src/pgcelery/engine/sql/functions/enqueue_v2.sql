-- What workers and producers of before gates call; see enqueue_v3. Their keys are gates of their own.
create or replace function pgcelery.enqueue_v2(
    ids text[], queue_ids integer[], priorities smallint[], names text[], payloads bytea[],
    due_ats timestamptz[], delays double precision[], expiries timestamptz[],
    max_deliveries smallint[], ttls double precision[], parents integer[], flags smallint[],
    keys text[], key_limits integer[], workflows text[], lives double precision[],
    edge_parents text[], edge_children text[]
) returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return (pgcelery.enqueue_v3(
        ids, queue_ids, priorities, names, payloads, due_ats, delays, expiries, max_deliveries, ttls,
        parents, flags,
        array(select case when u.key is not null then jsonb_build_object('g', jsonb_build_array(
                  jsonb_build_array(u.key, '', u.slots, 1, 0, null, 1, 1, false, 1)))::text end
              from unnest(keys, key_limits) with ordinality as u(key, slots, place) order by u.place),
        workflows, lives, edge_parents, edge_children)).existing;
end
$$;
