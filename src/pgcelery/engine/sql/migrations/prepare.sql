-- Where applied migrations are recorded; run before each of them, a no-op but for the first.
create table if not exists pgcelery.migrations (
    number integer primary key,
    name text not null,
    breaking boolean not null,
    applied_at timestamptz not null default now()
);
