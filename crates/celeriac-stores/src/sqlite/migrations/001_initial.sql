-- Times are microseconds since the Unix epoch, UTC, by the wall clock; `beat` is CLOCK_BOOTTIME.

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- `sequence` numbers rows and ranks, so that a row number is never used twice and a message sent
-- to the tail ranks behind everything that came before. `depth:<queue>` is how many messages a
-- queue holds in any state, for the depth limit. One small table: a commit writes one page of it.
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter VALUES ('sequence', 0);

-- Small rows that change often; the bytes that never change are in message_body.
-- state: 0 ready, 1 scheduled, 2 leased, 3 suspect (ready, but one at a time)
CREATE TABLE message (
  row INTEGER PRIMARY KEY,
  queue TEXT NOT NULL,
  step INTEGER NOT NULL,
  rank INTEGER NOT NULL,
  state INTEGER NOT NULL,
  due_at INTEGER,
  enqueued_at INTEGER NOT NULL,
  task_id TEXT NOT NULL,
  task TEXT NOT NULL,
  retries INTEGER NOT NULL,
  node INTEGER,
  token INTEGER,
  started_at INTEGER,
  redelivered INTEGER NOT NULL DEFAULT 0,
  deaths_seen INTEGER NOT NULL DEFAULT 0,
  deaths_counted INTEGER NOT NULL DEFAULT 0,
  history TEXT
);
CREATE TABLE message_body (
  row INTEGER PRIMARY KEY,
  headers TEXT NOT NULL,
  properties TEXT NOT NULL,
  content_type TEXT NOT NULL,
  content_encoding TEXT NOT NULL,
  body BLOB NOT NULL
);
CREATE INDEX message_ready ON message (queue, step, rank) WHERE state = 0;
CREATE INDEX message_suspect ON message (queue, step, rank) WHERE state = 3;
CREATE INDEX message_due ON message (due_at) WHERE state = 1;
CREATE INDEX message_node ON message (node) WHERE state = 2;
CREATE INDEX message_task ON message (task_id);

CREATE TABLE result (
  row INTEGER PRIMARY KEY,
  task_id TEXT NOT NULL UNIQUE,
  status TEXT NOT NULL,
  meta TEXT NOT NULL,
  task TEXT,
  queue TEXT,
  worker TEXT,
  enqueued_at INTEGER,
  started_at INTEGER,
  written_at INTEGER NOT NULL,
  retries INTEGER NOT NULL,
  expires_at INTEGER
);
CREATE INDEX result_expires ON result (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE chord (
  grp TEXT PRIMARY KEY,
  size INTEGER,
  counted INTEGER NOT NULL DEFAULT 0,
  done INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE chord_part (
  grp TEXT NOT NULL,
  task_id TEXT NOT NULL,
  idx INTEGER NOT NULL,
  state TEXT NOT NULL,
  result TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (grp, task_id)
) WITHOUT ROWID;

CREATE TABLE dead (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  queue TEXT NOT NULL,
  task_id TEXT NOT NULL,
  task TEXT NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  died_at INTEGER NOT NULL,
  enqueued_at INTEGER NOT NULL,
  history TEXT NOT NULL,
  headers TEXT NOT NULL,
  properties TEXT NOT NULL,
  content_type TEXT NOT NULL,
  content_encoding TEXT NOT NULL,
  body BLOB NOT NULL
);
CREATE INDEX dead_task ON dead (task_id);

CREATE TABLE revoked (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  task_id TEXT NOT NULL UNIQUE,
  terminate INTEGER NOT NULL,
  expires_at INTEGER NOT NULL
);

CREATE TABLE pause (queue TEXT PRIMARY KEY, since INTEGER NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;

-- state: 0 alive, 1 signed off, 2 died
CREATE TABLE node (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  pid INTEGER NOT NULL,
  queues TEXT NOT NULL,
  concurrency INTEGER NOT NULL,
  pool TEXT NOT NULL,
  tasks TEXT NOT NULL,
  heartbeat_us INTEGER NOT NULL,
  expiry_us INTEGER NOT NULL,
  boot TEXT NOT NULL,
  beat INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  seen_at INTEGER NOT NULL,
  active INTEGER NOT NULL DEFAULT 0,
  processed INTEGER NOT NULL DEFAULT 0,
  state INTEGER NOT NULL DEFAULT 0
);
