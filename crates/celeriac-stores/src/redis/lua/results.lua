-- Reads or removes keys of results and chords that are in a database of their own.
--   rdb      see the prelude
--   command  {words of one command}
-- Returns its answer.
return results(unpack(a.command))
