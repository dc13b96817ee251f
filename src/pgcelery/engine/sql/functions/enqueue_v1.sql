-- What workers and producers of before workflows call; see enqueue_v2.
create or replace function pgcelery.enqueue_v1(
    ids text[], queue_ids integer[], priorities smallint[], names text[], payloads bytea[],
    due_ats timestamptz[], delays double precision[], expiries timestamptz[],
    max_deliveries smallint[], ttls double precision[], parents integer[], flags smallint[],
    keys text[], key_limits integer[], edge_parents text[], edge_children text[]
) returns text[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return pgcelery.enqueue_v2(
        ids, queue_ids, priorities, names, payloads, due_ats, delays, expiries, max_deliveries, ttls,
        parents, flags, keys, key_limits, array_fill(null::text, array[cardinality(ids)]),
        array_fill(null::double precision, array[cardinality(ids)]), edge_parents, edge_children);
end
$$;
