-- End a connection of this node's that broke before this one was made, and wait for that, so many
-- milliseconds at most. The server may not have noticed: a step that waits for a lock would yet claim.
select pg_terminate_backend(old.pid, $2)
from pg_stat_activity old, pg_stat_activity me
where me.pid = pg_backend_pid() and old.pid = $1 and old.usesysid = me.usesysid
  and old.application_name = me.application_name and old.backend_start < me.backend_start
