//! The fault plan: rules that say which requests go wrong, and how.
//!
//! A rule matches requests by operation, bucket and key; of those it picks some by their number or by chance; and it
//! has one action. Every rule that picks a request adds its action to the request's `Effects`; the server looks at
//! these at the places where they matter. A new kind of fault is a variant of `Action`, an arm in `Action::apply`
//! and, unless an existing effect does, a field of `Effects`.
mod action;
mod plan;

pub use action::{Action, wrong_region};
pub use plan::{Call, Plan, RuleConfig, fingerprint};

use crate::error::S3Error;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a connection ends.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// RST.
    #[default]
    Reset,
    /// FIN.
    Close,
    /// Silence, until the client gives up.
    Stall,
}

/// A change of the stored object that a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    Replace { size_bytes: Option<u64> },
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingFault {
    Unordered,
    Duplicate,
    Empty,
    Endless,
}

/// An answer in place of the operation's.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub error: S3Error,
    pub empty: bool,
    pub body_bytes: u64,
    /// Refuse at this byte of the request's body, without reading on.
    pub early_at: Option<u64>,
}

/// All that goes wrong with one request.
#[derive(Clone, Debug, Default)]
pub struct Effects {
    pub delay: Duration,
    pub refusal: Option<Refusal>,
    /// Ends the connection before the operation is done.
    pub ending: Option<Ending>,
    /// Ends it within a body.
    pub cut: Option<(u64, Ending)>,
    /// For a stall that ends.
    pub stall: Option<Duration>,
    pub bytes_per_s: Option<f64>,
    pub before: Option<Mutation>,
    pub after: Option<Mutation>,
    pub corrupt: Vec<(u64, u8)>,
    pub lost: Option<Ending>,
    pub lost_refusal: Option<S3Error>,
    pub split_head: bool,
    pub chunked: bool,
    pub length_delta: i64,
    pub skew_s: i64,
    pub error_in_200: Option<S3Error>,
    pub white_space: Duration,
    pub ignore_conditions: bool,
    pub refuse_checksums: bool,
    pub listing: Option<ListingFault>,
    pub raw: Option<String>,
    pub endless_head: bool,
    pub close_after: bool,
    pub outage: Option<Duration>,
    /// Names of the actions, for the log.
    pub names: Vec<&'static str>,
}
