//! All that goes wrong with one request.
use super::Body;
use super::plan::glob;
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
    Stuck,
    Tokenless,
}

/// A body in HTTP's chunks.
#[derive(Clone, Copy, Debug)]
pub struct Chunks {
    pub most_bytes: u64,
    pub extensions: bool,
    pub trailers: bool,
}

/// A byte that is changed on its way.
#[derive(Clone, Copy, Debug)]
pub struct Corruption {
    pub at: u64,
    pub xor: u8,
    pub of: Body,
}

/// A time in which the server is not there.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub duration: Duration,
    /// Connections are made and stay, and nothing comes.
    pub silent: bool,
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
    /// Ends it within the answer's head.
    pub cut_head: Option<(u64, Ending)>,
    /// Ends it within a body.
    pub cut: Option<(u64, Ending)>,
    /// For a stall that ends.
    pub stall: Option<Duration>,
    pub bytes_per_s: Option<f64>,
    pub before: Option<Mutation>,
    pub after: Option<Mutation>,
    pub corrupt: Vec<Corruption>,
    pub lost: Option<Ending>,
    pub lost_refusal: Option<S3Error>,
    pub split_head: bool,
    pub interim: Option<u16>,
    pub headers: Vec<(String, Option<String>)>,
    pub chunks: Option<Chunks>,
    pub compressed: bool,
    pub length_delta: i64,
    pub skew_s: i64,
    pub error_in_200: Option<S3Error>,
    pub white_space: Duration,
    pub ignore_conditions: bool,
    pub ignore_range: bool,
    pub shift_range: i64,
    /// Globs over keys, and the errors of those.
    pub failed_deletes: Vec<(String, S3Error)>,
    pub refuse_checksums: bool,
    pub listing: Option<ListingFault>,
    pub raw: Option<String>,
    pub endless_head: bool,
    pub close_after: bool,
    pub close_announced: bool,
    pub outage: Option<Outage>,
    /// Names of the actions, for the log.
    pub names: Vec<&'static str>,
}

impl Effects {
    /// What DeleteObjects is to say of a key instead of deleting it.
    pub fn failed_delete(&self, key: &str) -> Option<&S3Error> {
        self.failed_deletes.iter().find(|(keys, _)| glob(keys, key)).map(|(_, error)| error)
    }

    /// Positions and changes of bytes in a body.
    pub fn corruptions(&self, body: Body) -> impl Iterator<Item = (u64, u8)> {
        self.corrupt.iter().filter(move |corruption| corruption.of == body).map(|c| (c.at, c.xor))
    }

    /// Whether the length that the head tells is not that of the body.
    pub fn misleads(&self) -> bool {
        let frames = |name: &str| ["content-length", "transfer-encoding"].iter().any(|n| name.eq_ignore_ascii_case(n));
        self.length_delta != 0 || self.headers.iter().any(|(name, _)| frames(name))
    }
}
