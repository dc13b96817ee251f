-- Messages to workers that also hold for those that start later, until their time is over.
create table pgcelery.kept (
    id bigint generated always as identity primary key,
    body bytea not null,
    expires_at timestamptz not null
);
