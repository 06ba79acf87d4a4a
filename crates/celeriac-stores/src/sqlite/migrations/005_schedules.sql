-- What runs at its time. `version` grows with every write of an entry; `wake` is when a beat has to look at
-- it again, NULL for never; `entry` and `state` are JSON. Times are microseconds since 1970.
CREATE TABLE entries (name TEXT PRIMARY KEY, version INTEGER NOT NULL, wake INTEGER, entry TEXT NOT NULL, state TEXT NOT NULL);
CREATE INDEX entries_wake ON entries (wake, name) WHERE wake IS NOT NULL;
-- What was fired: `open` 1 while the end of its task is not known; `document` is JSON.
CREATE TABLE occurrences (
    name TEXT NOT NULL, due INTEGER NOT NULL, fired INTEGER NOT NULL, open INTEGER NOT NULL, document TEXT NOT NULL,
    PRIMARY KEY (name, due)
) WITHOUT ROWID;
CREATE INDEX occurrences_fired ON occurrences (fired);
CREATE INDEX occurrences_open ON occurrences (fired) WHERE open = 1;
-- Who fires what is due; `holder` is empty when nobody does.
CREATE TABLE beat_leader (
    id INTEGER PRIMARY KEY CHECK (id = 1), holder TEXT NOT NULL, epoch INTEGER NOT NULL, until INTEGER NOT NULL
);
