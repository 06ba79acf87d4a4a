//! What carries messages from one queue, or one store, to another.

use super::{Delivery, NodeId};
use crate::error::StoreError;
use async_trait::async_trait;
use std::fmt;

/// Moving messages: they are held at their old place until they are at the new one.
///
/// Whoever moves is a node ([`super::Nodes::register`]) and settles what it holds, so that its death
/// returns everything. The new place leaves out what it has ([`super::Outgoing::once`]).
#[async_trait]
pub trait Moves: fmt::Debug + Send + Sync {
    /// Leases waiting messages for a node, by the rows of [`super::Queues::peek`], in their order: ready and
    /// scheduled ones, whatever pauses or limits say. Left out is what is gone, leased, or cannot be read.
    ///
    /// # Errors
    /// `Conflict` for a node that is not alive.
    async fn hold(&self, node: NodeId, rows: &[i64]) -> Result<Vec<Delivery>, StoreError>;

    /// Forgets keys of [`super::Outgoing::once`] before their time, when nobody can ask any more.
    async fn forget_once(&self, keys: &[String]) -> Result<(), StoreError>;
}
