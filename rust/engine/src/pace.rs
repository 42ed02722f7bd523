//! How many requests may wait for an answer of one bucket at once, reads and writes apart: all at first; fewer when the service asks
//! for less, and again more with time (additive increase, multiplicative decrease).
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What is left of the limit when the service asks for less; once a round trip, since what was sent before cannot know of it.
const DECREASE: f64 = 0.7;
/// From one request back to all that are allowed.
const RECOVERY: Duration = Duration::from_secs(5);
/// With one request at a time refused as well, the next waits so long, doubling up to the second: a service that comes back is found
/// soon enough for 90 % of the throughput after 10 s.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Whoever waits looks by itself after so long, should nobody have woken it.
const LOOK: Duration = Duration::from_millis(100);
/// Nobody is held back.
const FREE: usize = usize::MAX;

/// Of one route. It costs two additions a request while nothing is held back.
pub struct Pace {
    in_flight: AtomicUsize,
    limit: AtomicUsize,
    waiting: AtomicUsize,
    state: Mutex<State>,
    turn: Notify,
}

struct State {
    limit: f64,
    lowered: Option<Instant>,
    raised: Instant,
    /// Refusals in a row of the only request that is allowed, and until when the next one waits.
    refused: u32,
    opens: Option<Instant>,
}

/// A request under way. `crowd`: how many there were, with it.
pub struct Permit<'a> {
    pace: &'a Pace,
    pub crowd: usize,
}

impl Default for Pace {
    fn default() -> Pace {
        let state = State { limit: 0.0, lowered: None, raised: Instant::now(), refused: 0, opens: None };
        Pace {
            in_flight: AtomicUsize::new(0),
            limit: AtomicUsize::new(FREE),
            waiting: AtomicUsize::new(0),
            state: Mutex::new(state),
            turn: Notify::new(),
        }
    }
}

impl Pace {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Requests wait for their turn: further ones need not start.
    pub fn is_crowded(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    pub fn try_enter(&self) -> Option<Permit<'_>> {
        let limit = self.limit.load(Relaxed);
        if limit == FREE {
            return Some(Permit { pace: self, crowd: self.in_flight.fetch_add(1, Relaxed) + 1 });
        }
        if self.state().opens.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let before = self.in_flight.fetch_update(Relaxed, Relaxed, |n| (n < limit).then_some(n + 1)).ok()?;
        Some(Permit { pace: self, crowd: before + 1 })
    }

    /// Waits for its turn, at most so long.
    pub async fn enter(&self, most: Duration) -> Option<Permit<'_>> {
        let until = Instant::now() + most;
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let now = Instant::now();
            if let Some(permit) = self.try_enter() {
                return Some(permit);
            }
            if now >= until {
                return None;
            }
            let opens = self.state().opens.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            let wait = opens.max(LOOK).min(until - now);
            let _ = tokio::time::timeout(wait, self.turn.notified()).await;
        }
    }

    /// The service answered with something else than a wish for less.
    pub fn answered(&self, full: usize) {
        if self.limit.load(Relaxed) != FREE {
            self.raise(full, Instant::now());
        }
    }

    fn raise(&self, full: usize, now: Instant) {
        let mut state = self.state();
        let time = now.saturating_duration_since(state.raised).min(RECOVERY / 5);
        (state.raised, state.refused, state.opens) = (now, 0, None);
        state.limit += full as f64 * time.as_secs_f64() / RECOVERY.as_secs_f64();
        let limit = if state.limit >= full as f64 { FREE } else { state.limit as usize };
        let before = self.limit.swap(limit, Relaxed);
        drop(state);
        for _ in before..limit.min(before + self.waiting.load(Relaxed)) {
            self.turn.notify_one();
        }
    }

    /// The service asked for less, of a request that was sent at that time beside so many. `chance` in [0, 1) spreads those who ask again.
    pub fn throttled(&self, sent: Instant, crowd: usize, chance: f64) {
        self.lower(sent, crowd, chance, Instant::now());
    }

    fn lower(&self, sent: Instant, crowd: usize, chance: f64, now: Instant) {
        let mut state = self.state();
        if state.lowered.is_some_and(|lowered| sent <= lowered) {
            return;
        }
        let limit = self.limit.load(Relaxed);
        let from = if limit == FREE { crowd as f64 } else { state.limit.min(crowd as f64) };
        if from < 2.0 {
            let pause = FIRST_PAUSE * 2u32.pow(state.refused.min(5));
            state.refused += 1;
            state.opens = Some(now + pause.min(LONGEST_PAUSE).mul_f64(0.5 + chance / 2.0));
        }
        state.limit = (from * DECREASE).max(1.0);
        (state.lowered, state.raised) = (Some(now), now);
        self.limit.store(state.limit as usize, Relaxed);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.pace.in_flight.fetch_sub(1, Relaxed);
        if self.pace.limit.load(Relaxed) != FREE && self.pace.is_crowded() {
            self.pace.turn.notify_one();
        }
    }
}

/// Counts while it lives.
pub struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub fn new(count: &'a AtomicUsize) -> Waiting<'a> {
        count.fetch_add(1, Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: usize = 256;

    fn limit(pace: &Pace) -> usize {
        pace.limit.load(Relaxed)
    }

    #[test]
    fn a_round_trip_lowers_it_once() {
        let pace = Pace::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let permits: Vec<_> = (0..100).map(|_| pace.try_enter().unwrap()).collect();
        assert_eq!(permits[99].crowd, 100);
        for _ in 0..50 {
            pace.lower(at(0), 100, 0.0, at(25)); // all of them were sent before the first answer came
        }
        assert_eq!(limit(&pace), 70);
        assert!(pace.try_enter().is_none(), "100 are under way");
        drop(permits);
        pace.lower(at(30), 60, 0.0, at(55));
        assert_eq!(limit(&pace), 42);
        assert_eq!((0..100).filter_map(|_| pace.try_enter()).count(), 100, "each is given back at once");
        let kept: Vec<_> = (0..100).map_while(|_| pace.try_enter()).collect();
        assert_eq!(kept.len(), 42);
    }

    #[test]
    fn it_recovers_within_seconds_and_is_free_again() {
        let pace = Pace::default();
        let start = Instant::now();
        let mut now = start;
        while limit(&pace) > 1 {
            now += Duration::from_millis(30);
            pace.lower(now - Duration::from_millis(25), FULL, 0.5, now);
        }
        assert!(now - start < Duration::from_secs(1), "a second of refusals leaves one request at a time");
        let back = now;
        while limit(&pace) < FULL * 9 / 10 {
            now += Duration::from_millis(25);
            pace.raise(FULL, now);
        }
        assert!(now - back < Duration::from_secs(6), "{:?}", now - back);
        while limit(&pace) != FREE {
            now += Duration::from_millis(25);
            pace.raise(FULL, now);
        }
        assert!(pace.try_enter().is_some());
    }

    #[test]
    fn the_only_request_pauses_when_it_is_refused_too() {
        let pace = Pace::default();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            now += Duration::from_millis(25);
            pace.lower(now - Duration::from_millis(1), 1, 1.0, now);
            pauses.push(pace.state().opens.unwrap() - now);
        }
        assert_eq!((pauses[0], pauses[1], pauses[9]), (FIRST_PAUSE, FIRST_PAUSE * 2, LONGEST_PAUSE));
        assert!(pace.try_enter().is_none());
        pace.raise(FULL, now);
        assert!(pace.try_enter().is_some(), "an answer ends the pause");
    }
}
