-- Lanes. A message with a key, or of a task or queue that is limited or paused, stands in the lane of
-- its queue, task and key; all others stand in lane 0. A fetch looks at the head of every open lane,
-- so what has to wait stands in nobody's way. `open_at`: no rate lets the lane go before; the largest
-- integer: nothing in it is ready.
CREATE TABLE lane (
  id INTEGER PRIMARY KEY,
  queue TEXT NOT NULL,
  task TEXT NOT NULL,
  key TEXT NOT NULL,
  open_at INTEGER NOT NULL DEFAULT 0,
  UNIQUE (queue, task, key)
);
CREATE INDEX lane_open ON lane (queue, open_at);

-- `locks`: 0 not unique, 1 holds a key until it leaves, 2 until a worker takes it.
ALTER TABLE message ADD COLUMN lane INTEGER NOT NULL DEFAULT 0;
ALTER TABLE message ADD COLUMN locks INTEGER NOT NULL DEFAULT 0;
DROP INDEX message_ready;
CREATE INDEX message_ready ON message (queue, lane, step, rank) WHERE state = 0;
CREATE INDEX message_lane ON message (lane) WHERE lane <> 0;
CREATE INDEX message_running ON message (lane) WHERE state = 2 AND lane <> 0;

-- What becomes ready in a lane of which a fetch found nothing ready lets it be looked at again.
CREATE TRIGGER lane_filled AFTER INSERT ON message WHEN new.lane <> 0 AND new.state = 0 BEGIN
  UPDATE lane SET open_at = 0 WHERE id = new.lane AND open_at = 9223372036854775807;
END;
CREATE TRIGGER lane_refilled AFTER UPDATE OF state, lane ON message
WHEN new.lane <> 0 AND new.state = 0 AND (old.state <> 0 OR old.lane <> new.lane) BEGIN
  UPDATE lane SET open_at = 0 WHERE id = new.lane AND open_at = 9223372036854775807;
END;

-- kind: everything, queue, task, key; origin: 0 application, 1 operator. `rates` as people write them.
CREATE TABLE limit_rule (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  origin INTEGER NOT NULL,
  per_key INTEGER NOT NULL,
  rates TEXT NOT NULL,
  concurrency INTEGER,
  PRIMARY KEY (kind, name, origin)
) WITHOUT ROWID;

-- Where an evenly spread rate stands, and every start under a rate with a burst.
CREATE TABLE spread (counter TEXT PRIMARY KEY, next_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE grant_log (counter TEXT NOT NULL, at INTEGER NOT NULL);
CREATE INDEX grant_log_counter ON grant_log (counter, at);

-- Keys of unique messages. `row` is the message that holds the key; NULL once it has left and only the
-- window (`expires_at`) keeps the key taken.
CREATE TABLE unique_lock (
  key TEXT PRIMARY KEY,
  task_id TEXT NOT NULL,
  row INTEGER,
  expires_at INTEGER
) WITHOUT ROWID;
CREATE INDEX unique_lock_row ON unique_lock (row) WHERE row IS NOT NULL;
CREATE INDEX unique_lock_expires ON unique_lock (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE paused (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  since INTEGER NOT NULL,
  reason TEXT NOT NULL,
  PRIMARY KEY (kind, name)
) WITHOUT ROWID;
INSERT INTO paused SELECT 'queue', queue, since, reason FROM pause;
DROP TABLE pause;

-- What the dead letters weigh, kept as counters: counting a million of them takes too long.
ALTER TABLE dead ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE dead SET bytes = length(CAST(headers AS BLOB)) + length(CAST(properties AS BLOB)) + length(body)
  + length(CAST(history AS BLOB));
CREATE INDEX dead_died ON dead (died_at);
INSERT INTO counter SELECT 'dead letters', count(*) FROM dead;
INSERT INTO counter SELECT 'dead bytes', coalesce(sum(bytes), 0) FROM dead;
