//! How long each thread waited for results, and what came with them: so that whoever made something of them can tell how much of its
//! time that was.
use pyo3::prelude::*;
use s3dataset_engine::request::Outcome;
use std::cell::Cell;
use std::time::{Duration, Instant};

thread_local! {
    static TOTALS: Cell<(Duration, u64)> = const { Cell::new((Duration::ZERO, 0)) };
}

/// Runs `wait`, and adds its time.
pub fn timed<T>(wait: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = wait();
    TOTALS.with(|totals| totals.set((totals.get().0 + began.elapsed(), totals.get().1)));
    result
}

/// Adds what this thread takes.
pub fn add(outcome: &Outcome) {
    let nbytes = match outcome {
        Outcome::Body(body) => body.buffer.len() as u64,
        Outcome::Reply(reply) => reply.nbytes,
        Outcome::List(_) | Outcome::Failure(_) => 0,
    };
    TOTALS.with(|totals| totals.set((totals.get().0, totals.get().1 + nbytes)));
}

#[pyfunction]
pub fn received_by_thread() -> (f64, u64) {
    let (waited, nbytes) = TOTALS.get();
    (waited.as_secs_f64(), nbytes)
}
