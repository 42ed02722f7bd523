//! An S3 server for tests, demos and benchmarks, on loopback only.
//!
//! It speaks HTTP/1.1 by itself, so that faults can be made at any byte, and shares no code with the engine that it
//! tests. See `docs/decisions/0004-local-s3.md`.
//!
//! ```text
//! listen      threads, listeners, TLS   server                what the threads share
//! exchange    a request's way from its head to its answer
//! connection  bytes in and out, faults on the wire            stream, request, incoming, response, sending, pacer
//! operations  what S3 does: objects, copies, multipart uploads, listings, buckets
//! auth        SigV4                     receive, keep          bodies: decoded, verified, kept
//! store       buckets, objects, uploads; memory, directory, synthetic
//! variants    stores that are not quite S3
//! faults      the fault plan            stats                  counters, log of requests
//! control     the API under /_local/
//! ```
#![deny(unsafe_code)]

mod auth;
mod checksum;
mod config;
mod connection;
mod control;
mod date;
mod digits;
mod error;
mod exchange;
mod faults;
mod gzip;
mod incoming;
mod keep;
mod listen;
mod operations;
mod pacer;
mod receive;
mod request;
mod response;
mod sending;
mod server;
mod stats;
mod store;
mod stream;
mod tls;
mod variants;
mod xml;

pub use config::{Config, ReadyInfo};

use std::io;

/// Serves until stdin ends (unless configured otherwise) and calls `on_ready` once it listens.
///
/// Blocks the calling thread. `config_json` is a `Config` as JSON; unknown fields are refused, so that a misspelt one
/// is not silently without effect.
pub fn run(config_json: &str, on_ready: impl FnOnce(&ReadyInfo)) -> io::Result<()> {
    let config: Config = serde_json::from_str(config_json)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("the configuration: {error}")))?;
    listen::run(config, on_ready)
}
