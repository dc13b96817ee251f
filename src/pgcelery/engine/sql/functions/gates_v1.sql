-- The gates of a job, from the JSON that enqueue takes: {"g": [[name, key, slots, ...], ...]}, in the
-- order of the type's fields.
create function pgcelery.gates_v1(rule text) returns pgcelery.gate[]
language sql immutable strict
set search_path = pg_catalog, pg_temp
as $$
    select array_agg(row(g->>0, g->>1, (g->>2)::integer, (g->>3)::real, (g->>4)::smallint,
                         (g->>5)::integer, (g->>6)::double precision, (g->>7)::integer,
                         (g->>8)::boolean, (g->>9)::integer)::pgcelery.gate order by e.place)
    from jsonb_array_elements(rule::jsonb->'g') with ordinality as e(g, place);
$$;
