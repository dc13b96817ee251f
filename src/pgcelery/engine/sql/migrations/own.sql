-- For the rest of the transaction, act as the schema's owner if that is a role that `db roles` made: what
-- is created is its, and so has the privileges that it gives by default.
select set_config('role', r.rolname, true)
from pg_namespace n
join pg_roles r on r.oid = n.nspowner
where n.nspname = %s and not r.rolcanlogin and r.rolname <> current_user
  and pg_has_role(n.nspowner, 'member');
