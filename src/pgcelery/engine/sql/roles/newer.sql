-- How many functions of a schema that has roles are newer than these: PUBLIC may call them, or they are
-- not their owner's. Null if it has none, which shows in its owner being able to log in.
select case when not (select r.rolcanlogin from pg_roles r where r.oid = n.nspowner) then (
    select count(*)
    from pg_proc p
    where p.pronamespace = n.oid
      and (p.proowner <> n.nspowner
           or exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                      where a.grantee = 0)
           or (not p.prosecdef and p.proname ~
               '^(enqueue|enqueue_one|cancel|intern|intern_place|open_latch|close_latch|drop_latch|fetch|failures|await|forget|hand|keep)_v[0-9]+$')))
    end
from pg_namespace n
where n.nspname = %(schema)s;
