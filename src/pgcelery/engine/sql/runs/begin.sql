-- The begin of a run's transaction: which run it is, for record_v1. A client that is gone is noticed
-- while its statement runs, where the server's system can tell.
select set_config('pgcelery_run.token', %s, true),
       set_config('client_connection_check_interval',
                  case when version() like '%%linux%%' then '2000' else '0' end, true)
