-- When a line with a rate will let so many units through, as things stand; null for now.
create function pgcelery.opens_v1(line pgcelery.lines, units integer, at timestamptz)
returns timestamptz
language sql immutable
set search_path = pg_catalog, pg_temp
as $$
    select case when o.at > opens_v1.at then o.at end
    from (select case
              when line.rate is null then null
              when line.fixed
                  then case when line.used = 0 or line.used + units <= line.rate then null
                            else line.tat + make_interval(secs => line.period_s) end
              else greatest(line.tat, opens_v1.at) + make_interval(
                  secs => (units - greatest(line.burst, units)) * line.period_s / line.rate)
              end as at) o;
$$;
