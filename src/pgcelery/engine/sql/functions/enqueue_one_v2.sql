-- Insert one job that may run now, in the caller's transaction: what enqueue_v4 does for a job without
-- parents, times to wait for, rules, a workflow, or a wish to run again; the call that applications make
-- all day. Its flags have none of the bits 2, 64 and 128. 1 if the id existed, and was left alone (a
-- parked one is taken over); else 0, or 2 if the job was handed to a worker (hand_v1).
-- Promises P1, P2 of docs/guarantees.md.
create function pgcelery.enqueue_one_v2(
    id text, queue_id integer, priority smallint, name text, payload bytea, expires_at timestamptz,
    max_deliveries smallint, ttl_s double precision, flags smallint
) returns smallint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    place bigint;
begin
    insert into pgcelery.jobs as j (id, queue_id, priority, name, payload, expires_at, max_deliveries,
                                    ttl_s, parents, flags)
    values ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)
    on conflict do nothing
    returning j.seq into place;
    if place is null then
        return (
            select cardinality(e.existing) > 0
            from pgcelery.enqueue_v4(
                array[$1], array[$2], array[$3], array[$4], array[$5], array[null::timestamptz],
                array[null::double precision], array[$6], array[$7], array[$8], array[0], array[$9],
                array[null::text], array[null::text], array[null::double precision], '{}', '{}') e
            )::integer;
    end if;
    insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
    values ($2, $3, place, $1, 0, $9 & 1);
    return case when pgcelery.hand_v1($1, $2) then 2 else 0 end;
end
$$;
