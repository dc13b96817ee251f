-- Upkeep that knows of outages, of the workers that it buries, and of runs that were to be cancelled.

-- install functions/maintain_v2.sql
