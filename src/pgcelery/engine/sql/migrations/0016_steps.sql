-- A step of a chain is recorded with less work, and what it claimed is told before the commit.

-- install functions/relay_v3.sql
