//! Requests that read and get no answer for long are called off and sent again on another connection: a slow server, path or
//! connection costs a fraction of a second then, not seconds. Nothing of the first can arrive any more: its connection is closed.
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Never sooner: a connection's first round trips and a busy machine take as long now and then.
const LEAST: Duration = Duration::from_millis(200);
/// So many times the 95th percentile.
const FACTOR: f64 = 3.0;
/// Of one attempt. The second after the same time as the first, since the second server may be as unlucky; the third after twice that.
pub const MOST: u32 = 3;
/// Of all requests.
const SHARE: f64 = 0.05;
/// What a time without hedges adds up to at most: a service that becomes slow as a whole gets few, until the percentile has followed.
const SAVED: f64 = 16.0;
/// How fast the estimate of the percentile moves: by 8 % at most; a tenfold latency is learned in some thirty answers.
const STEP: f32 = 0.08;

/// What has a distribution of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Head,
    List,
    Small,
    Large,
}

/// Of one client.
#[derive(Default)]
pub struct Hedges {
    /// The running 95th percentile of the time to the first byte, in seconds, as the bits of a float; 0 at first.
    p95: [AtomicU32; 4],
    /// Hedges that may be sent, and the requests that were counted for them.
    allowance: Mutex<(f64, u64)>,
}

impl Hedges {
    /// When a request that has been sent again so often already is called off.
    pub fn delay(&self, class: Class, hedged: u32) -> Duration {
        let p95 = f32::from_bits(self.p95[class as usize].load(Relaxed));
        LEAST.max(Duration::from_secs_f64(FACTOR * f64::from(p95))) * 2u32.pow(hedged.saturating_sub(1))
    }

    /// An answer took so long; or was called off after that time, and would have taken longer.
    pub fn learn(&self, class: Class, ttfb: Duration) {
        let (cell, took) = (&self.p95[class as usize], ttfb.as_secs_f32());
        let p95 = f32::from_bits(cell.load(Relaxed));
        // One in twenty is longer when the steps balance. Two threads at once may lose one: it is an estimate.
        let next = match p95 {
            0.0 => took,
            _ if took > p95 => p95 * (1.0 + 0.95 * STEP),
            _ => p95 * (1.0 - 0.05 * STEP),
        };
        cell.store(next.clamp(1e-6, 1e4).to_bits(), Relaxed);
    }

    /// Whether one more may be sent, after so many requests.
    pub fn take(&self, requests: u64) -> bool {
        let mut allowance = self.allowance.lock().unwrap_or_else(|e| e.into_inner());
        let (left, counted) = *allowance;
        let left = (left + SHARE * requests.saturating_sub(counted) as f64).min(SAVED);
        let may = left >= 1.0;
        *allowance = (if may { left - 1.0 } else { left }, requests);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: Class = Class::Small;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn the_percentile_is_near_and_follows() {
        let hedges = Hedges::default();
        assert_eq!(hedges.delay(CLASS, 0), LEAST);
        // 1 ... 200 ms, evenly: the 95th percentile is 190.
        (0..20_000u64).for_each(|i| hedges.learn(CLASS, ms(1 + i * 7919 % 200)));
        let delay = hedges.delay(CLASS, 0);
        assert!((ms(3 * 165)..ms(3 * 215)).contains(&delay), "{delay:?}");
        assert_eq!(hedges.delay(CLASS, 1), delay);
        assert_eq!(hedges.delay(CLASS, 2), delay * 2);
        assert_eq!(hedges.delay(Class::List, 0), LEAST, "classes are apart");
        (0..200).for_each(|_| hedges.learn(CLASS, ms(2000)));
        assert!(hedges.delay(CLASS, 0) > ms(3 * 1900));
    }

    #[test]
    fn one_in_twenty_requests_at_most() {
        let hedges = Hedges::default();
        assert!(!hedges.take(19));
        assert!(hedges.take(20));
        let sent = (21..=10_000).filter(|n| hedges.take(*n)).count();
        assert!((490..=499).contains(&sent), "{sent}");
        // What was not needed is not kept for ever.
        let saved = Hedges::default();
        assert_eq!((0..1000).filter(|_| saved.take(1_000_000)).count(), 16);
    }
}
