-- What a job that waited has got: the results of these ids, and of those that joined them since.
with wanted as (
    select u.id, u.place, false as joined
    from unnest(%(ids)s::text[]) with ordinality as u(id, place)
    union all
    select u.id, u.place, true
    from pgcelery.jobs j, unnest(j.joined) with ordinality as u(id, place)
    where j.id = %(id)s
)
select w.id, w.joined, s.state, s.result, s.finished_at
from wanted w
left join pgcelery.results s on s.id = w.id
order by w.joined, w.place;
