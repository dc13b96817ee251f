-- Lock a schedule until the end of the transaction, and return how it stands and what time it is.
-- Waits for another claim for wait_s, then raises lock_not_available. A process that stops dead
-- in a claim loses it after a minute. A schedule that is unknown is entered as given.
create function pgcelery.claim_slot_v1(
    of_book text, of_name text, last_run timestamptz, count bigint, wait_s double precision
) returns table (last_run_at timestamptz, total_run_count bigint, at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
begin
    perform set_config('lock_timeout', (wait_s * 1000)::integer::text, true),
            set_config('idle_in_transaction_session_timeout', '60000', true);
    insert into pgcelery.schedules (book, name, last_run_at, total_run_count)
    values (of_book, of_name, last_run, count)
    on conflict (book, name) do nothing;
    select s.last_run_at, s.total_run_count
    into last_run_at, total_run_count
    from pgcelery.schedules s
    where s.book = of_book and s.name = of_name
    for no key update;
    -- Read after the lock was waited for.
    at := clock_timestamp();
    return next;
end
$$;
