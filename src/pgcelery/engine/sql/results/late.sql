-- Outcomes that were refused lately, by reason.
select l.reason, count(*) from pgcelery.late l group by l.reason
