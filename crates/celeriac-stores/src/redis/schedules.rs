//! Entries that run at their time. Not yet.

use super::RedisStore;
use async_trait::async_trait;
use celeriac_core::StoreError;
use celeriac_core::store::{EntryRecord, Fire, Fired, Lead, Occurrence, Saved, Schedules};
use celeriac_wire::State;
use jiff::Timestamp;
use std::time::Duration;

fn refused<T>() -> Result<T, StoreError> {
    Err(StoreError::invalid("schedules are not on Redis yet"))
}

#[async_trait]
impl Schedules for RedisStore {
    async fn save_entries(&self, _records: Vec<EntryRecord>) -> Result<Vec<Saved>, StoreError> {
        refused()
    }

    async fn remove_entry(&self, _name: &str, _version: u64) -> Result<bool, StoreError> {
        refused()
    }

    async fn entry(&self, _name: &str) -> Result<Option<EntryRecord>, StoreError> {
        refused()
    }

    async fn entries(&self, _after: &str, _count: usize) -> Result<Vec<EntryRecord>, StoreError> {
        refused()
    }

    async fn entry_count(&self) -> Result<u64, StoreError> {
        refused()
    }

    async fn due_entries(
        &self,
        _now: Timestamp,
        _count_max: usize,
    ) -> Result<Vec<EntryRecord>, StoreError> {
        refused()
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        refused()
    }

    async fn lead(&self, _holder: &str, _lease: Duration) -> Result<Lead, StoreError> {
        refused()
    }

    async fn resign(&self, _holder: &str, _epoch: u64) -> Result<(), StoreError> {
        refused()
    }

    async fn leader(&self) -> Result<Option<Lead>, StoreError> {
        refused()
    }

    async fn fire(&self, _epoch: Option<u64>, _fires: Vec<Fire>) -> Result<Vec<Fired>, StoreError> {
        refused()
    }

    async fn occurrences(
        &self,
        _name: &str,
        _before: Timestamp,
        _count_max: usize,
    ) -> Result<Vec<Occurrence>, StoreError> {
        refused()
    }

    async fn open_occurrences(
        &self,
        _after: Timestamp,
        _count_max: usize,
    ) -> Result<Vec<(String, Occurrence)>, StoreError> {
        refused()
    }

    async fn end_occurrences(
        &self,
        _ended: Vec<(String, Timestamp, State)>,
    ) -> Result<(), StoreError> {
        refused()
    }
}
