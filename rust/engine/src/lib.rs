//! The data plane of s3dataset: HTTP, signing, retries and memory. Knows nothing of Python.
//!
//! ```text
//! engine    one a process: lanes, pool, budget, who may start next
//! queue     submission and completion; what waits, what has ended
//! lane      one thread: an event loop, its connections, its running requests; begins anew after a panic
//! caller    a lane for one request, on the thread that waits for it
//! attempt   one request over its attempts: sign, send, classify, back off         session keys for a directory bucket
//! fetch     GetObject: into the memory where the bytes are wanted      call    everything else
//! connect   connections: new, idle, TLS settings                       http    HTTP/1.1 on one connection
//! tls       rustls between the socket and the connection               proxy   which hosts are reached by way of one
//! addresses of names, and which to avoid
//! head      the head of a response                                    classify what an error answer means
//! slot      deadlines and cancellation of a running request            budget  bytes in flight
//! ticket    that every request ends                                    assembly one result in parallel ranges
//! pace      how many requests a bucket gets at once                   hedge   those that get no answer are sent again
//! sync      locks and atomics, those of the model checker in its tests
//! raw       the only unsafe code: foreign memory, sockets, pooled buffers
//! sign xml checksum date    pure: no I/O
//! ```
#![deny(unsafe_code)]

pub mod budget;
pub mod checksum;
pub mod client;
pub mod connect;
pub mod date;
pub mod engine;
pub mod failure;
pub mod proxy;
pub mod queue;
pub mod raw;
pub mod request;
pub mod session;
pub mod sign;
pub mod stats;
pub mod xml;

mod addresses;
mod assembly;
mod attempt;
mod call;
mod caller;
mod classify;
mod fetch;
mod head;
mod hedge;
mod http;
mod lane;
#[cfg(all(test, feature = "loom"))]
mod model;
mod pace;
mod slot;
#[cfg(test)]
mod spoilt;
mod sync;
mod ticket;
mod tls;
#[cfg(any(test, fuzzing))]
pub mod trials;
