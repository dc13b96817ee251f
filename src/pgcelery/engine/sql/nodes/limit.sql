-- How long a statement of this connection may take; less, if the server or the role says so.
select set_config('statement_timeout', $1, false)
from pg_settings s
where s.name = 'statement_timeout' and (s.setting::integer = 0 or s.setting::integer > $1::integer)
