//! The byte budget: requests in flight and bodies that nobody has taken yet.
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*, fence};
use std::sync::Arc;
use std::task::Waker;

type Wake = dyn Fn() + Send + Sync;

/// A limit that admits. It never blocks: who is refused is woken when something was given back.
pub struct Budget {
    limit: usize,
    used: AtomicUsize,
    refused: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
    wake: Box<Wake>,
}

impl Budget {
    /// `wake` is called when bytes come back after a refusal.
    pub fn new(limit: usize, wake: Box<Wake>) -> Arc<Budget> {
        Arc::new(Budget {
            limit,
            used: AtomicUsize::new(0),
            refused: AtomicBool::new(false),
            waiting: Mutex::default(),
            wake,
        })
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// More than the whole budget is granted only while nothing else is out, so an oversized request runs alone.
    pub fn try_acquire(self: &Arc<Self>, bytes: usize) -> Option<Grant> {
        let fits = |used: usize| used.checked_add(bytes).is_some_and(|sum| sum <= self.limit) || used == 0;
        for last in [false, true] {
            if self.used.fetch_update(AcqRel, Acquire, |used| fits(used).then_some(used + bytes)).is_ok() {
                return Some(Grant { budget: self.clone(), bytes });
            }
            if !last {
                self.say_refused(); // before the second look: whoever gives back after it sees the flag
            }
        }
        None
    }

    /// For the head of a queue, which must always get on.
    pub fn acquire_forced(self: &Arc<Self>, bytes: usize) -> Grant {
        self.used.fetch_add(bytes, AcqRel);
        Grant { budget: self.clone(), bytes }
    }

    /// As [`Budget::try_acquire`], and more than fits where `is_due` says so; otherwise `waker` is woken when it is worth asking again.
    pub fn acquire_or_wake(self: &Arc<Self>, bytes: usize, waker: &Waker, is_due: impl Fn() -> bool) -> Option<Grant> {
        for last in [false, true] {
            if is_due() {
                return Some(self.acquire_forced(bytes));
            }
            if let Some(grant) = self.try_acquire(bytes) {
                return Some(grant);
            }
            if !last {
                self.wake_on_release(waker);
            }
        }
        None
    }

    fn wake_on_release(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock().unwrap_or_else(|e| e.into_inner());
        if !waiting.iter().any(|w| w.will_wake(waker)) {
            waiting.push(waker.clone());
        }
        drop(waiting);
        self.say_refused();
    }

    /// What is read after this was given back before it, or by somebody who sees the flag.
    fn say_refused(&self) {
        self.refused.swap(true, SeqCst); // costs what a store costs, and loom knows its order among other swaps
        fence(SeqCst);
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, SeqCst);
        self.nudge();
    }

    /// Lets those who were refused look again.
    pub fn nudge(&self) {
        fence(SeqCst); // what changed for them is seen by whoever looks after this
        if self.refused.swap(false, SeqCst) {
            for waker in std::mem::take(&mut *self.waiting.lock().unwrap_or_else(|e| e.into_inner())) {
                waker.wake();
            }
            (self.wake)();
        }
    }
}

/// Bytes of a budget, given back when this dies.
pub struct Grant {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Grant {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Gives back what is more than `bytes`.
    pub fn shrink(&mut self, bytes: usize) {
        if bytes < self.bytes {
            let back = self.bytes - bytes;
            self.bytes = bytes;
            self.budget.release(back);
        }
    }

    /// Joins another grant of the same budget to this one.
    pub fn join(&mut self, mut other: Grant) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.release(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn admits_up_to_the_limit_and_wakes_after_a_refusal() {
        let woken = Arc::new(AtomicU32::new(0));
        let count = woken.clone();
        let budget = Budget::new(
            100,
            Box::new(move || {
                count.fetch_add(1, SeqCst);
            }),
        );
        let first = budget.try_acquire(60).unwrap();
        let second = budget.try_acquire(40).unwrap();
        drop(second);
        assert_eq!(woken.load(SeqCst), 0, "nobody was refused");
        assert!(budget.try_acquire(50).is_none());
        drop(first);
        assert_eq!((woken.load(SeqCst), budget.used()), (1, 0));
    }

    #[test]
    fn an_oversized_request_runs_alone_and_the_head_always() {
        let budget = Budget::new(100, Box::new(|| ()));
        let large = budget.try_acquire(1000).unwrap();
        assert!(budget.try_acquire(1).is_none());
        let head = budget.acquire_forced(5);
        assert_eq!(budget.used(), 1005);
        drop((large, head));
        assert_eq!(budget.used(), 0);
    }
}
