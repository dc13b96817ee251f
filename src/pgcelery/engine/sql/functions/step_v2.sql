-- What workers of before gates call; see step_v3. The keys of their follow-ups are gates.
create or replace function pgcelery.step_v2(
    me integer, want integer, queue_ids integer[],
    tokens bigint[], ids text[], states smallint[], results bytea[], ttls double precision[],
    f_tokens bigint[], f_ids text[], f_queue_ids integer[], f_priorities smallint[], f_names text[],
    f_payloads bytea[], f_due_ats timestamptz[], f_delays double precision[],
    f_expiries timestamptz[], f_max_deliveries smallint[], f_ttls double precision[],
    f_parents integer[], f_flags smallint[], f_keys text[], f_key_limits integer[],
    f_workflows text[], f_lives double precision[], f_edge_parents text[], f_edge_children text[],
    d_tokens bigint[], d_ids text[]
) returns table (kind integer, job_id text, token bigint, queue_id integer, name text,
                 payload bytea, priority integer, delivery integer, flags integer, fed_by text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    return query
    select * from pgcelery.step_v3(
        me, want, queue_ids, '{}', '{}', null, 60, tokens, ids, states, results, ttls,
        f_tokens, f_ids, f_queue_ids, f_priorities, f_names, f_payloads, f_due_ats, f_delays,
        f_expiries, f_max_deliveries, f_ttls, f_parents, f_flags,
        array(select case when u.key is not null then jsonb_build_object('g', jsonb_build_array(
                  jsonb_build_array(u.key, '', u.slots, 1, 0, null, 1, 1, false, 1)))::text end
              from unnest(f_keys, f_key_limits) with ordinality as u(key, slots, place)
              order by u.place),
        f_workflows, f_lives, f_edge_parents, f_edge_children, d_tokens, d_ids) s
    where s.kind <> 10;
end
$$;
