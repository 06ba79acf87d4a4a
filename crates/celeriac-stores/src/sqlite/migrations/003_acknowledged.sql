-- `acknowledged`: 0 no, 1 by the worker that holds it (Celery's early acknowledgement), 2 by one that
-- left it behind. `state` 4: lost, not to run again; whoever takes it sets it aside.
ALTER TABLE message ADD COLUMN acknowledged INTEGER NOT NULL DEFAULT 0;
CREATE INDEX message_lost ON message (queue, step, rank) WHERE state = 4;
