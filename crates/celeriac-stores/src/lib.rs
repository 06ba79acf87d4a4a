//! The stores of celeriac: memory and SQLite, with one conformance suite
