//! The entries of RedBeat 2.4 (wire specification 8.8), read and left as they are.

use super::Questions;
use crate::redis::address::Address;
use celeriac_core::beat::redbeat::RedBeatEntry;
use celeriac_core::{ErrorKind, StoreError};
use std::collections::BTreeMap;

/// How many entries are fetched at a time.
const PAGE: usize = 500;
/// The most entries that are read.
const ENTRIES_MAX: usize = 1_000_000;

/// The fields `definition` and `meta` of a key.
type Fields = (Option<Vec<u8>>, Option<Vec<u8>>);

/// The entries below a prefix (`redbeat_key_prefix`), by their names.
///
/// # Errors
/// `Invalid` for a URL that is none of Redis; `NotFound` if there is no schedule; that Redis does not answer.
pub async fn read(url: &str, prefix: &str) -> Result<Vec<RedBeatEntry>, StoreError> {
    let address = Address::parse(url)?;
    let mut questions = Questions { connection: address.connect(None).await?, address: &address };
    let due = due_times(&mut questions, prefix).await?;
    let mut entries = Vec::with_capacity(due.len());
    for page in due.into_iter().collect::<Vec<_>>().chunks(PAGE) {
        let mut fetch = redis::pipe();
        for (key, _) in page {
            fetch.cmd("HMGET").arg(key).arg("definition").arg("meta");
        }
        let found: Vec<Fields> = questions.all("read RedBeat's entries", &fetch).await?;
        entries.extend(page.iter().zip(found).map(|((key, due), (definition, meta))| {
            let name = key.strip_prefix(prefix).unwrap_or(key).to_owned();
            RedBeatEntry { name, definition, meta, due: *due }
        }));
    }
    Ok(entries)
}

/// When each entry is due, by its key.
async fn due_times(
    questions: &mut Questions<'_>,
    prefix: &str,
) -> Result<BTreeMap<String, f64>, StoreError> {
    let schedule = format!("{prefix}:schedule");
    let mut found = BTreeMap::new();
    let mut cursor = 0_u64;
    loop {
        let mut scan = redis::cmd("ZSCAN");
        scan.arg(&schedule).arg(cursor).arg("COUNT").arg(PAGE);
        let (next, members): (u64, Vec<(Vec<u8>, f64)>) =
            questions.ask("read RedBeat's schedule", &scan).await?;
        let text = |key: Vec<u8>| String::from_utf8_lossy(&key).into_owned();
        found.extend(members.into_iter().map(|(key, due)| (text(key), due)));
        if found.len() > ENTRIES_MAX {
            let text = format!("{schedule} has more than {ENTRIES_MAX} entries");
            return Err(StoreError::new(ErrorKind::TooLarge, text));
        }
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    if found.is_empty() {
        let text = format!("there is no key {schedule} in Redis at {}", questions.address);
        return Err(StoreError::new(ErrorKind::NotFound, text)
            .hint("name the database in the URL, and redbeat_key_prefix with --prefix"));
    }
    Ok(found)
}
