-- The statements, in order, that give a schema its four roles; to be run in one transaction. They begin
-- by taking everything away, so running them again also undoes what was granted by hand, and covers what
-- migrations have added since. Names of producers' functions are here, their versions in the catalog.
with given as (
    select %(schema)s::text as schema, r.owner, r.producer, r.worker, r.viewer
    from (select %(prefix)s || '_owner' as owner, %(prefix)s || '_producer' as producer,
                 %(prefix)s || '_worker' as worker, %(prefix)s || '_viewer' as viewer) r
), relations as (
    select c.oid, c.relname as name, c.relkind as kind, pg_get_userbyid(c.relowner) as owner
    from pg_class c, given g
    where c.relnamespace = to_regnamespace(quote_ident(g.schema)) and c.relkind in ('r', 'p', 'v', 'm', 'S', 'c')
      -- an identity column's sequence goes with its table
      and not (c.relkind = 'S' and exists (
                      select from pg_depend d
                      where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i')))
), functions as (
    select p.oid::regprocedure::text as name, pg_get_userbyid(p.proowner) as owner,
           p.prosecdef as definer, p.provolatile,
           p.proname ~ '^(enqueue|enqueue_one|cancel|intern|intern_place|open_latch|close_latch|drop_latch|fetch|failures|await|forget|hand|keep)_v[0-9]+$'
               as for_producers
    from pg_proc p, given g
    where p.pronamespace = to_regnamespace(quote_ident(g.schema))
), statements (place, statement) as (
    select 1, format('create role %%I nologin', u.role)
    from given g, unnest(array[g.owner, g.producer, g.worker, g.viewer]) as u(role)
    where not exists (select from pg_roles r where r.rolname = u.role)
    union all
    select 2, format('grant %%I to current_user', g.owner)
    from given g
    where not exists (select from pg_roles r where r.rolname = current_user and r.rolsuper)
    union all
    select 3, format('alter schema %%I owner to %%I', g.schema, g.owner) from given g
    union all
    select 4, format('alter %%s %%I.%%I owner to %%I',
                     case r.kind when 'S' then 'sequence' when 'c' then 'type' when 'v' then 'view'
                                 when 'm' then 'materialized view' else 'table' end,
                     g.schema, r.name, g.owner)
    from given g, relations r
    where r.owner <> g.owner
    union all
    select 5, format('alter function %%s owner to %%I', f.name, g.owner)
    from given g, functions f
    where f.owner <> g.owner
    union all
    select 6, format('revoke all on %%s from public, %%I, %%I, %%I', o.what, g.producer, g.worker, g.viewer)
    from given g,
         lateral (values (format('schema %%I', g.schema)),
                         (format('all tables in schema %%I', g.schema)),
                         (format('all sequences in schema %%I', g.schema)),
                         (format('all functions in schema %%I', g.schema))) as o(what)
    union all
    select 7, format('grant usage on schema %%I to %%I, %%I, %%I', g.schema, g.producer, g.worker, g.viewer)
    from given g
    union all
    select 8, format(o.what, g.schema, g.worker)
    from given g,
         (values ('grant select, insert, update, delete on all tables in schema %%I to %%I'),
                 ('revoke insert, update, delete on %%I.migrations from %%I'),
                 ('grant usage on all sequences in schema %%I to %%I'),
                 ('grant execute on all functions in schema %%I to %%I')) as o(what)
    union all
    select 9, format('grant select on all tables in schema %%I to %%I', g.schema, g.viewer) from given g
    union all
    select 10, format('grant execute on function %%s to %%I', f.name, g.viewer)
    from given g, functions f
    where f.provolatile <> 'v'
    union all
    select 11, format('alter function %%s security definer', f.name)
    from functions f
    where f.for_producers and not f.definer
    union all
    select 12, format('grant execute on function %%s to %%I', f.name, g.producer)
    from given g, functions f
    where f.for_producers
    union all
    select 13, format('alter default privileges for role %%I ' || o.what, g.owner, o.whom)
    from given g,
         lateral (values
             ('revoke execute on functions from public', null),
             (format('in schema %%I ', g.schema) || 'grant execute on functions to %%I', g.worker),
             (format('in schema %%I ', g.schema) || 'grant usage on sequences to %%I', g.worker),
             (format('in schema %%I ', g.schema) || 'grant select, insert, update, delete on tables to %%I',
              g.worker),
             (format('in schema %%I ', g.schema) || 'grant select on tables to %%I', g.viewer))
             as o(what, whom)
)
select s.statement from statements s order by s.place, s.statement;
