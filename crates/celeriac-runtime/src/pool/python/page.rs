//! The page of memory that a worker and one child share: what runs, since when, how many ended.
//!
//! It is read and written as a file. That is one system call, as quick as what a mapping would need to
//! be safe, and neither side can break the other's memory.

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The size of a page.
const PAGE_BYTES: u64 = 4096;
/// Where the tag stands that is over its soft limit.
const TARGET_AT: u64 = 24;

/// A status page.
#[derive(Debug)]
pub(super) struct Page(OwnedFd);

/// What a child has written last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Status {
    /// The tag that runs; 0 when none does.
    pub(super) running: u64,
    /// How many runs have ended.
    pub(super) done: u64,
}

impl Page {
    pub(super) fn new() -> io::Result<Self> {
        let page = memfd_create(c"celeriac page", MemfdFlags::CLOEXEC)?;
        ftruncate(&page, PAGE_BYTES)?;
        Ok(Self(page))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What the child does.
    pub(super) fn read(&self) -> io::Result<Status> {
        let mut bytes = [0; 24];
        let mut read = 0;
        while read < bytes.len() {
            match pread(&self.0, &mut bytes[read..], read as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => read += count,
            }
        }
        let number = |at: usize| {
            bytes[at..at + 8].iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        Ok(Status { running: number(0), done: number(16) })
    }

    /// Says which run is over its soft limit.
    pub(super) fn aim(&self, tag: u64) -> io::Result<()> {
        // The kernel takes eight bytes whole.
        pwrite(&self.0, &tag.to_le_bytes(), TARGET_AT)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_what_the_other_writes() {
        let page = Page::new().unwrap();
        assert_eq!(page.read().unwrap(), Status::default());
        pwrite(page.fd(), &7_u64.to_le_bytes(), 0).unwrap();
        pwrite(page.fd(), &3_u64.to_le_bytes(), 16).unwrap();
        assert_eq!(page.read().unwrap(), Status { running: 7, done: 3 });
        page.aim(7).unwrap();
        let mut target = [0; 8];
        pread(page.fd(), &mut target, TARGET_AT).unwrap();
        assert_eq!(u64::from_le_bytes(target), 7);
    }
}
