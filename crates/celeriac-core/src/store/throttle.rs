//! Limits that hold for all workers of a store together.

use crate::error::StoreError;
use crate::throttle::{LimitRule, RuleOrigin, Target};
use async_trait::async_trait;
use jiff::Timestamp;
use std::fmt;

/// A rule and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct LimitView {
    /// The rule.
    pub rule: LimitRule,
    /// Whether it holds: an operator's rule stands before the application's of the same target.
    pub in_force: bool,
    /// Messages of it that run now.
    pub running: u64,
    /// When its rate lets the next one go; `None` when that is now, or different for each key.
    pub next_at: Option<Timestamp>,
}

/// Keeps limits. A limited message waits in its queue and stands in nobody's way.
#[async_trait]
pub trait Throttle: fmt::Debug + Send + Sync {
    /// Makes these the application's rules for their targets, and takes its rules for the other
    /// tasks of `tasks` away. A worker calls it when it starts.
    async fn declare_limits(
        &self,
        tasks: &[String],
        rules: Vec<LimitRule>,
    ) -> Result<(), StoreError>;

    /// Sets the operator's rule for a target.
    async fn set_limit(&self, rule: LimitRule) -> Result<(), StoreError>;

    /// Takes a rule away; `false` when there was none.
    async fn remove_limit(&self, target: &Target, origin: RuleOrigin) -> Result<bool, StoreError>;

    /// All rules.
    async fn limits_in_force(&self) -> Result<Vec<LimitView>, StoreError>;
}
