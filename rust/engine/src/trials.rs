//! What comes from outside, given to whoever reads it: what must hold whatever the bytes are.
//!
//! Two drive it: `spoilt`, which spoils inputs at random in every run of the tests, and libFuzzer, guided by which code an input
//! reaches (`make fuzz`, rust/fuzz).

use crate::client::Settings;
use std::time::Duration;

mod answers;
mod pure;
mod stream;

/// What is done with one input, the inputs that it begins with, and what they are spoilt with.
pub struct Trial {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// How many inputs the tests try.
    pub rounds: u32,
    pub begin: &'static [&'static [u8]],
    pub splinters: &'static [&'static [u8]],
}

pub const TRIALS: [Trial; 8] =
    [pure::HEAD, pure::DATE, pure::CHECKSUM, pure::NO_PROXY, pure::XML, pure::KEY, stream::STREAM, answers::ANSWERS];

#[cfg(test)]
pub use pure::{XML, xml};

/// One input, from libFuzzer.
pub fn run(name: &str, bytes: &[u8]) {
    let trial = TRIALS.iter().find(|trial| trial.name == name).expect("a trial of that name");
    (trial.run)(bytes);
}

/// Of a client that gives up soon.
pub fn settings() -> Settings {
    let (soon, sooner) = (Duration::from_millis(120), Duration::from_millis(4));
    Settings {
        unsigned: false,
        user_agent: "test".into(),
        part_size: 64,
        max_attempts: 3,
        max_connections: 4,
        large_in_flight: 4,
        connect_timeout: sooner,
        first_byte_timeout: Some(sooner),
        stall_timeout: sooner,
        retry_max_elapsed: soon,
        save_max_elapsed: soon,
        verify_reads: true,
        headers: Vec::new(),
        object_headers: Default::default(),
    }
}
