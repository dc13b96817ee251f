-- Schedules: jobs that are enqueued again and again. Firing one is a transaction that locks its row,
-- decides by last_run_at and this server's clock whether a slot is due, enqueues, and moves
-- last_run_at on; so of any number of processes that run the same schedules, one fires each slot.

create table pgcelery.schedules (
    book text collate "C" not null,           -- whose they are: names are unique within a book
    name text collate "C" not null,
    last_run_at timestamptz not null,         -- of the slot fired last; at first, of its entry
    total_run_count bigint not null,
    retired_at timestamptz,                   -- when its book was entered without it
    primary key (book, name)
) with (fillfactor = 50);

-- install functions/enter_schedules_v1.sql
-- install functions/claim_slot_v1.sql
