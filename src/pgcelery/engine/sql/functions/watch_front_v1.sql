-- Keep in mind, for this session, how long the look for the first job of a queue took. Twice in a row
-- over a millisecond: what was claimed lies there and cannot be cleaned away, as a snapshot is open. For
-- a second, or a hundred times what the look took up to five, claims go past floors (take_past_v1); the
-- one after that looks from the front again. A setting of the session holds it: {ms of the clock until
-- when, floor of priority 0, ..., of 9}; a first {0} is a suspicion.
create function pgcelery.watch_front_v1(queue_id integer, took interval) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    setting text := 'pgcelery_claims.q' || queue_id;
    slow boolean := took > interval '1 ms';
begin
    if slow and current_setting(setting, true) <> '' then
        perform set_config(
            setting,
            ((extract(epoch from clock_timestamp() + least(greatest(took * 100, interval '1 s'),
                                                           interval '5 s')) * 1000)::bigint
             || array_fill(0::bigint, array[10]))::text,
            false);
    else
        perform set_config(setting, case when slow then '{0}' else '' end, false);
    end if;
end
$$;
