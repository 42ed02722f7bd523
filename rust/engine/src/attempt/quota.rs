//! A bound on retries: where most requests fail, sending each of them again at once doubles the load of a service that is down. An
//! empty quota delays; it never fails a request.
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Retries for each request sent, so that a fault that hits each once costs nothing.
const FOR_EACH_REQUEST: f64 = 0.5;
/// Of the connections allowed, a second.
const SHARE_A_SECOND: f64 = 0.125;
const LONGEST: Duration = Duration::from_secs(5);

/// Of one client.
#[derive(Default)]
pub struct Quota(Mutex<Option<State>>);

struct State {
    /// Below zero: so many are waiting.
    left: f64,
    requests: u64,
    at: Instant,
}

impl Quota {
    /// -> how long a retry has to wait, after so many requests by a client of so many connections.
    pub fn take(&self, requests: u64, connections: usize) -> Duration {
        self.take_at(requests, connections, Instant::now())
    }

    fn take_at(&self, requests: u64, connections: usize, now: Instant) -> Duration {
        let (most, a_second) = (2.0 * connections as f64, SHARE_A_SECOND * connections as f64);
        let mut state = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let state = state.get_or_insert(State { left: most, requests, at: now });
        let time = now.saturating_duration_since(state.at).as_secs_f64();
        let earned = time * a_second + requests.saturating_sub(state.requests) as f64 * FOR_EACH_REQUEST;
        let least = -LONGEST.as_secs_f64() * a_second;
        *state = State { left: ((state.left + earned).min(most) - 1.0).max(least), requests, at: now };
        Duration::from_secs_f64(-state.left.min(0.0) / a_second).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_now_and_then_wait_for_nothing() {
        let quota = Quota::default();
        let now = Instant::now();
        for i in 0..10_000 {
            assert_eq!(quota.take_at(2 * i, 64, now), Duration::ZERO); // each request fails once
        }
    }

    #[test]
    fn an_empty_quota_delays_and_fills_again() {
        let quota = Quota::default();
        let start = Instant::now();
        let waits: Vec<_> = (0..300).map(|_| quota.take_at(0, 64, start)).collect();
        assert_eq!((waits[127], waits[299]), (Duration::ZERO, LONGEST));
        assert!(waits.windows(2).all(|w| w[0] <= w[1]));
        assert_eq!(quota.take_at(0, 64, start + Duration::from_secs(60)), Duration::ZERO);
    }
}
