//! Windows of unique tasks that are over are forgotten.

use super::Core;
use super::pack::Pack;
use super::script::FORGET;
use celeriac_core::StoreError;
use redis::Value as Answer;
use std::sync::atomic::Ordering;

/// Looks at some of the keys; every sweep goes on where the last one ended.
pub(super) async fn forget_windows(core: &Core) -> Result<(), StoreError> {
    let mut argument = Pack::default();
    argument.map(3);
    core.pack_head(&mut argument);
    argument.text("cursor").text(&core.unique_cursor.load(Ordering::Relaxed).to_string());
    let answer = core.link.script("forget unique tasks", &FORGET, argument.into_bytes()).await?;
    if let Answer::BulkString(cursor) = answer {
        let cursor = String::from_utf8_lossy(&cursor).parse().unwrap_or(0);
        core.unique_cursor.store(cursor, Ordering::Relaxed);
    }
    Ok(())
}
