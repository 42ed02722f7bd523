//! The bandwidth of a connection.
use crate::store::content::PIECE_BYTES;
use std::time::{Duration, Instant};

/// Keeps bytes to so many a second.
pub struct Pacer {
    bytes_per_s: f64,
    start: Instant,
    moved: u64,
}

impl Pacer {
    pub fn new(bytes_per_s: f64) -> Option<Self> {
        (bytes_per_s > 0.0).then(|| Self { bytes_per_s, start: Instant::now(), moved: 0 })
    }

    /// About 5 ms of bytes: finer than what a client could tell from an even flow.
    pub fn piece_bytes(&self) -> usize {
        (self.bytes_per_s * 0.005).clamp(1.0, PIECE_BYTES as f64) as usize
    }

    pub async fn moved(&mut self, bytes: u64) {
        self.moved += bytes;
        let due = Duration::from_secs_f64(self.moved as f64 / self.bytes_per_s);
        let ahead = due.saturating_sub(self.start.elapsed());
        // Timers have a resolution of 1 ms; what is less is made up for at the next piece.
        if ahead > Duration::from_millis(1) {
            tokio::time::sleep(ahead).await;
        }
    }
}
