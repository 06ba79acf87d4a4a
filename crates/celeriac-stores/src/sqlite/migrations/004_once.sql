-- What was sent with a key that goes once, and until when that is remembered.
CREATE TABLE once (key TEXT PRIMARY KEY, task_id TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX once_until ON once (until);
