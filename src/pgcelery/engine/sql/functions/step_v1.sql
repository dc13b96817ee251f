-- What workers of before workflows call; see step_v2.
create or replace function pgcelery.step_v1(
    me integer, want integer, queue_ids integer[],
    tokens bigint[], ids text[], states smallint[], results bytea[], ttls double precision[],
    f_tokens bigint[], f_ids text[], f_queue_ids integer[], f_priorities smallint[], f_names text[],
    f_payloads bytea[], f_due_ats timestamptz[], f_delays double precision[],
    f_expiries timestamptz[], f_max_deliveries smallint[], f_ttls double precision[],
    f_parents integer[], f_flags smallint[], f_keys text[], f_key_limits integer[],
    f_edge_parents text[], f_edge_children text[]
) returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
                 payload bytea, priority integer, delivery integer, flags integer)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select s.kind, s.job_id, s.token, s.queue_id, s.name, s.payload, s.priority, s.delivery, s.flags
    from pgcelery.step_v2(
        me, want, queue_ids, tokens, ids, states, results, ttls, f_tokens, f_ids, f_queue_ids,
        f_priorities, f_names, f_payloads, f_due_ats, f_delays, f_expiries, f_max_deliveries,
        f_ttls, f_parents, f_flags, f_keys, f_key_limits,
        array_fill(null::text, array[cardinality(f_ids)]),
        array_fill(null::double precision, array[cardinality(f_ids)]),
        f_edge_parents, f_edge_children, '{}', '{}') s;
end
$$;
