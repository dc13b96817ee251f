-- Whether anybody listens.
select exists (select from pgcelery.listeners l where l.until > now());
