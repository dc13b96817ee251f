-- When a line with a rate lets through so many units, asked at a time: that time or earlier for now. By
-- the theoretical arrival time (GCRA), or when the next window begins.
create function pgcelery.opens_v1(line pgcelery.lines, units integer, at timestamptz)
returns timestamptz
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
    if line.rate is null then  -- what counts slots now
        return at;
    end if;
    if line.fixed then
        if line.tat is null or at >= line.tat + make_interval(secs => line.period_s)
           or line.used = 0 or line.used + units::bigint <= line.rate then
            return at;
        end if;
        return line.tat + make_interval(secs => line.period_s);
    end if;
    -- More units than can ever be saved up pass when all that can be is there.
    return greatest(line.tat, at) + make_interval(
        secs => (units - greatest(line.burst, units)::double precision) * line.period_s / line.rate);
end
$$;
